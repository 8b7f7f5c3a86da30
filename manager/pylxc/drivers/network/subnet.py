"""Choose a private subnet that nobody on this host uses; only local facts decide, nothing is sent."""

from __future__ import annotations

import ipaddress
import os
import random
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping

from pylxc.config.network import BRIDGE
from pylxc.errors import BadRequest, Unavailable
from pylxc.kernel import netinfo
from pylxc.kernel.netlink import Netlink

_RESOLV_CONF = "/etc/resolv.conf"
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
_TRIES = 500

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def in_use(netlink: Netlink, *, but_for: str = "") -> list[str]:
    """Return what the host uses: subnets of its routes and interfaces, gateways, name servers.

    Args:
        netlink: of the host.
        but_for: name of an interface that does not count.
    """
    own = netlink.find(but_for) if but_for else None
    index = own.index if own else -1
    found = [r.destination for r in netlink.routes() if r.destination and r.index != index]
    found += [r.gateway for r in netlink.routes() if r.gateway and r.index != index]
    for interface in netinfo.interfaces([os.getpid()]).get(os.getpid(), []):
        if interface.index != index:
            found += [f"{a.address}/{a.prefix}" for a in interface.addresses]
    return found + _name_servers()


def _name_servers() -> list[str]:
    try:
        with open(_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        return []
    return [w[1].partition("%")[0] for w in words if len(w) > 1 and w[0] == "nameserver"]


def overlapping(subnet: str, taken: Iterable[str]) -> str | None:
    """Return the first of `taken` that overlaps `subnet`; default routes and what is no address do not count."""
    wanted = ipaddress.ip_network(subnet, strict=False)
    for other in _networks(taken):
        if other.version == wanted.version and other.prefixlen > 0 and wanted.overlaps(other):
            return str(other)
    return None


def free_ipv4(taken: Iterable[str], choose: random.Random | None = None) -> str:
    """Return an address in CIDR notation, the first of a /24 out of the private ranges that overlaps none of `taken`.

    Raises:
        Unavailable: all of them are in use.
    """
    random_ = choose or random.SystemRandom()
    used = [network for network in _networks(taken) if network.version == 4 and network.prefixlen > 0]
    for candidate in _candidates(random_):
        if not any(candidate.overlaps(other) for other in used):
            return f"{candidate.network_address + 1}/24"
    raise Unavailable("No private IPv4 subnet is free", hint="set ipv4.address")


def _candidates(choose: random.Random) -> Iterator[ipaddress.IPv4Network]:
    for _ in range(_TRIES):
        yield ipaddress.IPv4Network(f"10.{choose.randrange(256)}.{choose.randrange(256)}.0/24")
    for private in _PRIVATE:
        yield from ipaddress.IPv4Network(private).subnets(new_prefix=24)


def free_ipv6() -> str:
    """Return an address in CIDR notation, the first of a random unique local /64. See: RFC 4193."""
    words = [secrets.randbelow(0x10000) for _ in range(3)]
    return f"fd42:{words[0]:x}:{words[1]:x}:{words[2]:x}::1/64"


def free_address(config: Mapping[str, str], family: str, taken: Collection[str]) -> str:
    """Return an address of a bridge's network that DHCP may hand out, and that is none of `taken`.

    Args:
        config: of the network.
        family: ipv4 or ipv6.
        taken: addresses.

    Returns:
        Empty where the network hands out none.

    Raises:
        BadRequest: all of them are taken.
    """
    own = BRIDGE.value(config, f"{family}.address")
    handed_out = "dhcp" if family == "ipv4" else "dhcp.stateful"
    if own in ("", "none") or not all(BRIDGE.is_true(config, f"{family}.{key}") for key in ("dhcp", handed_out)):
        return ""
    bridge = ipaddress.ip_interface(own)
    ranges = config.get(f"{family}.dhcp.ranges", "")
    spans = [text.strip().split("-") for text in ranges.split(",")] if ranges else [_all_of(bridge.network)]
    used = {ipaddress.ip_address(address) for address in taken if address} | {bridge.ip}
    for first, last in spans:
        start = int(bridge.network.network_address) if first.startswith("::") else 0  # it is relative
        low, high = int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))
        for number in range(start + low, start + high + 1):
            address = type(bridge.ip)(number)
            if address not in used:
                return str(address)
    raise BadRequest(f"All {family} addresses of the network are taken", hint=f"see {family}.dhcp.ranges")


def _all_of(network: Network) -> list[str]:
    return [str(network.network_address + 1), str(network.broadcast_address - 1)]


def _networks(texts: Iterable[str]) -> Iterator[Network]:
    for text in texts:
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
