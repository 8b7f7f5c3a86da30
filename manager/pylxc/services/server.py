"""The server itself: its configuration, and what GET /1.0 tells about it."""

from __future__ import annotations

import os
import platform
import re
import socket
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

from sqlalchemy import select

from pylxc import __version__
from pylxc.config.server import SERVER
from pylxc.db import projects, server_config
from pylxc.db.engine import Database
from pylxc.db.models import StoragePool
from pylxc.kernel.architecture import host_architectures
from pylxc.revert import Reverter
from pylxc.services import extensions
from pylxc.services.addresses import reachable
from pylxc.services.certificate import ServerCertificate
from pylxc.services.certificates import password
from pylxc.services.certificates.caller import LOCAL, Caller
from pylxc.services.etag import check, etag
from pylxc.services.events import EventBus
from pylxc.services.storage.service import StoragePools
from pylxc.wire.server import DIALECT

LISTENERS = ("core.https_address", "core.metrics_address")
"""Keys that say where this server listens."""
_PASSWORD = "core.trust_password"  # noqa: S105 - a key

ConfigValues = Mapping[str, str | bool | int | None]


class Listeners(Protocol):
    """What listens on the network: `pylxc.daemon.listeners`."""

    def move(self, key: str, address: str) -> None:
        """Listen where `key` (of `LISTENERS`) says from now on, "" for nowhere; raises BadRequest, nothing changed."""


class Server:
    """The server's configuration and facts; thread-safe.

    Args:
        database: holds the configuration.
        certificate: the server's own.
        storage: asked for drivers and pools.
        events: told of changes.
        stop: called by `shutdown`; stops containers and operations, returns when they are stopped.

    Attributes:
        certificate: the server's own.
        listeners: told of changes of where to listen, once there are any.
    """

    def __init__(
        self,
        database: Database,
        certificate: ServerCertificate,
        storage: StoragePools,
        events: EventBus,
        stop: Callable[[bool], None],
    ) -> None:
        self._database = database
        self.certificate = certificate
        self.listeners: Listeners | None = None
        self._storage = storage
        self._events = events
        self._stop = stop
        self._lock = threading.Lock()
        self._config: dict[str, str] | None = None  # every request asks for it, and only this class writes it

    def get(self, project: str, caller: Caller = LOCAL) -> tuple[dict[str, Any], str]:
        """Return the wire's Server and its ETag; without its configuration to who is restricted, or not trusted.

        Who is not trusted gets a ServerUntrusted.
        """
        shown = _shown(self.config()) if caller.trusted and not caller.restricted else {}
        answer: dict[str, Any] = {
            "config": shown,
            "api_extensions": list(extensions.NAMES),
            "api_status": "stable",
            "api_version": "1.0",
            "auth": "trusted" if caller.trusted else "untrusted",
            "public": False,
            "auth_methods": ["tls"],
        }
        if caller.trusted:
            answer["environment"] = self._environment(project)
        return answer, etag(shown)

    def config(self) -> dict[str, str]:
        """Return what is stored of the configuration."""
        with self._lock:
            return dict(self._load())

    def value(self, key: str) -> str:
        """Return a configuration key's value, its default when it is not set."""
        return SERVER.value(self.config(), key)

    def value_for(self, project: str, key: str) -> str:
        """Return what holds for a project: its own value of a key, else the server's; raises NotFound for it."""
        with self._database.reading() as session:
            own = projects.get(session, project).config.get(key)
        return own or self.value(key)

    def replace(self, values: ConfigValues, if_match: str | None = None) -> None:
        """Make `values` the whole configuration.

        Raises:
            BadRequest: a key is not known, or a value malformed.
            NotSupported: a key asks for what this server does not do.
            PreconditionFailed: `if_match` is not the present ETag.
        """
        self._write(values, if_match, keep=False)

    def merge(self, values: ConfigValues, if_match: str | None = None) -> None:
        """Set the keys in `values`; an empty value unsets its key. Raises like `replace`."""
        self._write(values, if_match, keep=True)

    def addresses(self) -> list[str]:
        """Return where this server can be reached over TLS, as HOST:PORT; nothing when it cannot."""
        address = self.value("core.https_address")
        return reachable(address) if address else []

    def restore(self, config: Mapping[str, str]) -> None:
        """Put back what `config` has returned, hidden values included."""
        with self._lock:
            self._apply(dict(config))

    def shutdown(self, *, force: bool) -> None:
        """Stop every container and then the daemon; return when the containers are stopped.

        Args:
            force: do not wait for running operations.
        """
        self._stop(force)

    def _write(self, values: ConfigValues, if_match: str | None, *, keep: bool) -> None:
        with self._lock:
            old = self._load()
            check(if_match, _shown(old))
            new = dict(old) if keep else {}
            for key, value in values.items():
                row = SERVER.get(key)
                new[key] = old.get(key, "") if row.hidden and value is True else _text(value)
                if key == _PASSWORD and new[key] and new[key] != old.get(key):
                    new[key] = password.hashed(new[key])
            new = {key: value for key, value in new.items() if value and (key in old or value != SERVER.default(key))}
            SERVER.validate(new)
            changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            self._apply(new)
        if changed:
            shown = _shown(new)
            context = {key: shown.get(key, "") for key in changed}
            self._events.lifecycle("config-updated", "/1.0", project="", context=context)

    def _load(self) -> dict[str, str]:
        if self._config is None:
            with self._database.reading() as session:
                self._config = server_config.read(session)
        return self._config

    def _apply(self, config: dict[str, str]) -> None:
        """Listen where `config` says, and store it: both or neither."""
        old = self._load()
        with Reverter() as revert:
            for key in LISTENERS:
                if self.listeners is not None and old.get(key) != config.get(key):
                    revert.add(self.listeners.move, key, old.get(key, ""))
                    self.listeners.move(key, config.get(key, ""))
            self._store(config)
            revert.success()

    def _store(self, config: dict[str, str]) -> None:
        with self._database.transaction() as session:
            server_config.write(session, config)
        self._config = config

    def _environment(self, project: str) -> dict[str, Any]:
        certificate = self.certificate.get()
        drivers = self._storage.drivers()
        versions = {driver.name: driver.version for driver in drivers}
        with self._database.reading() as session:
            used = sorted(set(session.scalars(select(StoragePool.driver).where(StoragePool.state == "created"))))
        return {
            **_host_facts(),
            "addresses": self.addresses(),
            "certificate": certificate.pem,
            "certificate_fingerprint": certificate.fingerprint,
            "driver": "pylxc",
            "driver_version": __version__,
            "firewall": "nftables",
            "project": project,
            "pylxc_version": __version__,
            "server": "pylxc",
            "server_clustered": False,
            "server_event_mode": "full-mesh",
            "server_name": socket.gethostname(),
            "server_pid": os.getpid(),
            "server_version": DIALECT,
            "storage": " | ".join(used),
            "storage_version": " | ".join(versions.get(name, "") for name in used),
            "storage_supported_drivers": [
                {"Name": driver.name, "Version": driver.version, "Remote": driver.remote} for driver in drivers
            ],
        }


def _shown(config: Mapping[str, str]) -> dict[str, str | bool]:
    return {key: True if (row := SERVER.find(key)) and row.hidden else value for key, value in config.items()}


def _text(value: str | bool | int | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _host_facts() -> dict[str, Any]:
    """Return what does not change while this process lives."""
    uname = os.uname()
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        "architectures": list(host_architectures()),
        "kernel": uname.sysname,
        "kernel_architecture": uname.machine,
        "kernel_features": _kernel_features(uname.release),
        "kernel_version": uname.release,
        "lxc_features": _LXC_FEATURES,
        "os_name": release.get("NAME", ""),
        "os_version": release.get("VERSION_ID", ""),
    }


def _kernel_features(release: str) -> dict[str, str]:
    """Return what this kernel can do, by LXD's names."""
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    listener = "user_notif" in _read("/proc/sys/kernel/seccomp/actions_avail").split()
    features = {
        "idmapped_mounts": version >= (5, 12),
        "netnsid_getifaddrs": version >= (4, 20),
        "seccomp_listener": listener,
        "seccomp_listener_continue": listener and version >= (5, 5),
        "shiftfs": "shiftfs" in _read("/proc/filesystems").split(),
        "uevent_injection": version >= (4, 17),
        "unpriv_fscaps": version >= (4, 14),
    }
    return {name: str(there).lower() for name, there in features.items()}


_LXC_FEATURES = {
    name: str(name in ("cgroup2", "devpts_fd", "idmapped_mounts_v2", "pidfd")).lower()
    for name in (
        "cgroup2",
        "core_scheduling",
        "devpts_fd",
        "idmapped_mounts_v2",
        "mount_injection_file",
        "network_gateway_device_route",
        "network_ipvlan",
        "network_l2proxy",
        "network_phys_macvlan_mtu",
        "network_veth_router",
        "pidfd",
        "seccomp_allow_deny_syntax",
        "seccomp_notify",
        "seccomp_proxy_send_notify_fd",
    )
}
"""What of LXC's runtime abilities pylxc's own runtime has."""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
