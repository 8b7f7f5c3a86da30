"""Configuration keys of the server.

See: LXD 5.0 doc/server.md
"""

from __future__ import annotations

from pylxc import validate as v
from pylxc.config.key import Key, Table
from pylxc.errors import BadRequest


def _pool_volume(value: str) -> None:
    if value.count("/") != 1 or value.startswith("/") or value.endswith("/"):
        raise BadRequest(f"Invalid volume {value!r}: POOL/VOLUME is needed")


def _foreign(name: str, what: str, *, hidden: bool = False) -> Key:
    return Key(name=name, type="string", refused=True, live=True, hidden=hidden, help=what)


SERVER = Table(
    "server",
    "Server",
    (
        Key(name="backups.compression_algorithm", type="string", check=v.compression, default="gzip", live=True,
            help="Compression of backups: gzip, bzip2, lzma, xz, zstd or none; with a level, `gzip -9`."),
        Key(name="core.bgp_address", type="address", refused=True, live=True, help="Address of the BGP server."),
        Key(name="core.bgp_asn", type="integer", check=v.integer(0, 4294967294), refused=True, live=True,
            help="BGP autonomous system number."),
        Key(name="core.bgp_routerid", type="address", check=v.ipv4, refused=True, live=True, help="BGP router id."),
        Key(name="core.debug_address", type="address", refused=True, live=True, help="Address of a debug server."),
        Key(name="core.dns_address", type="address", refused=True, live=True, help="Address of the DNS server."),
        Key(name="core.https_address", type="address", check=v.listen_address, live=True,
            help="Address of the API over TLS: HOST, HOST:PORT or :PORT; port 8443 if there is none."),
        Key(name="core.https_allowed_credentials", type="bool", check=v.boolean, refused=True, live=True,
            help="The header Access-Control-Allow-Credentials."),
        Key(name="core.https_allowed_headers", type="string", refused=True, live=True,
            help="The header Access-Control-Allow-Headers."),
        Key(name="core.https_allowed_methods", type="string", refused=True, live=True,
            help="The header Access-Control-Allow-Methods."),
        Key(name="core.https_allowed_origin", type="string", refused=True, live=True,
            help="The header Access-Control-Allow-Origin."),
        Key(name="core.https_trusted_proxy", type="list", refused=True, live=True,
            help="Addresses of proxies that may hand on a client's address."),
        Key(name="core.metrics_address", type="address", check=v.listen_address, live=True,
            help="Address, like core.https_address, of a server that has nothing but /1.0/metrics, over TLS."),
        Key(name="core.metrics_authentication", type="bool", check=v.boolean, default="true", live=True,
            help="Whether metrics are for trusted clients only."),
        Key(name="core.proxy_http", type="string", live=True, unset="http_proxy of the daemon's environment",
            help="Proxy of what is downloaded over HTTP: packages for recipes."),
        Key(name="core.proxy_https", type="string", live=True, unset="https_proxy of the daemon's environment",
            help="Proxy of what is downloaded over HTTPS: images, packages for recipes."),
        Key(name="core.proxy_ignore_hosts", type="string", live=True, unset="no_proxy of the daemon's environment",
            help="Hosts that need no proxy, with commas: names, domains, addresses, or *."),
        Key(name="core.remote_token_expiry", type="expiry", check=v.expiry, live=True, unset="never",
            help="When join tokens expire, counted from when they are made."),
        Key(name="core.shutdown_timeout", type="integer", check=v.integer(0), default="5", live=True,
            help="Minutes that shutdown waits for operations."),
        Key(name="core.trust_ca_certificates", type="bool", check=v.boolean, refused=True, live=True,
            help="Whether every client is trusted that a CA has signed."),
        Key(name="core.trust_password", type="string", live=True, hidden=True,
            help="Password for clients that ask to be trusted. It is kept as a salted hash, and reads as true."),
        Key(name="images.auto_update_cached", type="bool", check=v.boolean, default="true", live=True,
            help="Whether cached images are kept up to date."),
        Key(name="images.auto_update_interval", type="integer", check=v.integer(0), default="6", live=True,
            help="Hours between updates of the images that are kept up to date; 0 for never."),
        Key(name="images.compression_algorithm", type="string", check=v.compression, default="gzip", live=True,
            help="Compression of new images: gzip, bzip2, lzma, xz, zstd or none; with a level, `gzip -9`."),
        Key(name="images.default_architecture", type="string", refused=True, live=True,
            help="Architecture to be preferred in images."),
        Key(name="images.keyring.*", type="string", check=v.absolute_path, live=True,
            help="Path of a key ring in binary form: the index of the simplestreams server HOST or HOST:PORT that ends "
            "the key is refused unless one of these keys has signed it."),
        Key(name="images.remote_cache_expiry", type="integer", check=v.integer(0), default="10", live=True,
            help="Days after which an unused cached image is removed; 0 for never."),
        Key(name="storage.backups_volume", type="string", check=_pool_volume, refused=True,
            help="Volume that backups are stored in, as POOL/VOLUME."),
        Key(name="storage.images_volume", type="string", check=_pool_volume, refused=True,
            help="Volume that images are stored in, as POOL/VOLUME."),
        Key(name="cluster.https_address", type="address", refused=True, live=True, help="Address for cluster traffic."),
        Key(name="cluster.images_minimal_replica", type="integer", check=v.integer(), refused=True, default="3",
            live=True, help="Cluster members that hold a copy of each image."),
        Key(name="cluster.join_token_expiry", type="expiry", check=v.expiry, refused=True, default="3H", live=True,
            help="When cluster join tokens expire."),
        Key(name="cluster.max_standby", type="integer", check=v.integer(0, 5), refused=True, default="2", live=True,
            help="Cluster members with the database stand-by role."),
        Key(name="cluster.max_voters", type="integer", check=v.integer(3), refused=True, default="3", live=True,
            help="Cluster members with the database voter role."),
        Key(name="cluster.offline_threshold", type="integer", check=v.integer(10), refused=True, default="20",
            live=True, help="Seconds after which a silent cluster member counts as offline."),
        _foreign("candid.api.key", "Candid's key."),
        _foreign("candid.api.url", "Candid's URL."),
        _foreign("candid.domains", "Candid's domains."),
        Key(name="candid.expiry", type="integer", check=v.integer(1), refused=True, default="3600", live=True,
            help="Candid's expiry in seconds."),
        _foreign("maas.api.key", "MAAS' key.", hidden=True),
        _foreign("maas.api.url", "MAAS' URL."),
        _foreign("maas.machine", "This host in MAAS."),
        _foreign("network.ovn.integration_bridge", "OVN's bridge."),
        _foreign("network.ovn.northbound_connection", "OVN's northbound database."),
        _foreign("rbac.agent.private_key", "RBAC agent's private key.", hidden=True),
        _foreign("rbac.agent.public_key", "RBAC agent's public key."),
        _foreign("rbac.agent.url", "RBAC agent's URL."),
        _foreign("rbac.agent.username", "RBAC agent's user."),
        _foreign("rbac.api.key", "RBAC's key."),
        _foreign("rbac.api.url", "RBAC's URL."),
        Key(name="rbac.expiry", type="integer", check=v.integer(1), refused=True, default="3600", live=True,
            help="RBAC's expiry in seconds."),
        Key(name="user.*", type="string", live=True, help="Free for the user."),
    ),
)  # fmt: skip
