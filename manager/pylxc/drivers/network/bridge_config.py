"""What the configuration of a managed bridge says: checked, completed, and put into the terms of who acts on it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from pylxc.config.network import BRIDGE
from pylxc.drivers.network import subnet
from pylxc.drivers.network.dnsmasq import Settings, Subnet
from pylxc.drivers.network.passage import Way
from pylxc.drivers.network.rules import Side
from pylxc.errors import BadRequest, NotSupported
from pylxc.kernel.netlink import random_hwaddr
from pylxc.kernel.sysctl import ipv6_works

Config = Mapping[str, str]
Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface

FAMILIES = ("ipv4", "ipv6")
_SMALLEST_IPV4, _SLAAC = 30, 64  # prefix lengths
_IPV6_MTU = 1280


def complete(config: Config, taken: list[str]) -> dict[str, str]:
    """See `NetworkDriver.complete`."""
    BRIDGE.validate(config)
    new = {key: value for key, value in config.items() if value != ""}
    for key, only in (("bridge.mode", "standard"), ("bridge.driver", "native")):
        if BRIDGE.value(new, key) != only:
            raise NotSupported(f"Networks with {key}={new[key]} are not supported")
    for family in FAMILIES:
        if new.get(f"{family}.address", "auto") == "auto":
            _choose(family, new, taken)
        elif new[f"{family}.address"] != "none":
            _refuse_overlap(family, new[f"{family}.address"], taken)
        _check_ranges(new, family)
    _check_sizes(new)
    _check_ports(new)
    if not new.get("bridge.hwaddr") and not new.get("volatile.bridge.hwaddr"):
        new["volatile.bridge.hwaddr"] = random_hwaddr()
    return new


def _choose(family: str, config: dict[str, str], taken: list[str]) -> None:
    if family == "ipv4":
        config["ipv4.address"] = subnet.free_ipv4(taken)
    else:
        config["ipv6.address"] = subnet.free_ipv6() if ipv6_works() else "none"
    if config[f"{family}.address"] != "none":
        config.setdefault(f"{family}.nat", "true")


def _refuse_overlap(family: str, cidr: str, taken: list[str]) -> None:
    if other := subnet.overlapping(cidr, taken):
        raise BadRequest(f"Subnet of {family}.address {cidr} overlaps {other}, which is in use")


def _check_ranges(config: Config, family: str) -> None:
    own = address(config, family)
    for text in listed(config, f"{family}.dhcp.ranges"):
        ends = [ipaddress.ip_address(part.strip()) for part in text.split("-")]
        if own is None or len(ends) != 2 or int(ends[0]) > int(ends[1]):
            raise BadRequest(f"Invalid value for {family}.dhcp.ranges: {text!r} is no range of {family}.address")
        if text.startswith("::"):
            continue  # relative to the subnet
        if any(end not in own.network for end in ends):
            raise BadRequest(f"Invalid value for {family}.dhcp.ranges: {text!r} is outside of {own.network}")


def _check_sizes(config: Config) -> None:
    ipv4, ipv6 = address(config, "ipv4"), address(config, "ipv6")
    if ipv4 and ipv4.network.prefixlen > _SMALLEST_IPV4:
        raise BadRequest(f"Subnet of ipv4.address {ipv4} has no room for instances", hint="/30 or larger")
    if ipv4 and ipv4.ip in (ipv4.network.network_address, ipv4.network.broadcast_address):
        raise BadRequest(f"ipv4.address {ipv4} is the address of a subnet, not of a machine")
    if ipv6 is None:
        return
    if int(BRIDGE.value(config, "bridge.mtu")) < _IPV6_MTU:
        raise BadRequest(f"The minimum MTU for an IPv6 network is {_IPV6_MTU}", hint="or set ipv6.address=none")
    is_plain = BRIDGE.is_true(config, "ipv6.dhcp") and not BRIDGE.is_true(config, "ipv6.dhcp.stateful")
    if is_plain and ipv6.network.prefixlen != _SLAAC:
        raise BadRequest(
            f"Instances choose no addresses of their own in {ipv6.network}", hint="a /64, or ipv6.dhcp.stateful=true"
        )


def _check_ports(config: Config) -> None:
    ports = listed(config, "bridge.external_interfaces")
    if ports and config.get("bridge.hwaddr") and not any(address(config, family) for family in FAMILIES):
        raise BadRequest("Cannot use bridge.hwaddr with bridge.external_interfaces when the bridge has no addresses")


# What it says to others


def address(config: Config, family: str) -> Address | None:
    """Return the bridge's address, None for none; `family` is ipv4 or ipv6."""
    text = config.get(f"{family}.address", "none")
    return None if text == "none" else ipaddress.ip_interface(text)


def listed(config: Config, key: str) -> list[str]:
    """Return the parts of a key that is a list."""
    return [part.strip() for part in config.get(key, "").split(",") if part.strip()]


def hwaddr(config: Config) -> str:
    """Return the bridge's MAC address."""
    return (config.get("bridge.hwaddr") or config["volatile.bridge.hwaddr"]).lower()


def routes(config: Config) -> list[str]:
    """Return the further subnets that are routed to the bridge, those of families that it has."""
    wanted = [text for family in FAMILIES if address(config, family) for text in listed(config, f"{family}.routes")]
    return [str(ipaddress.ip_network(text)) for text in wanted]


def side(config: Config, family: str) -> Side | None:
    """Return what the packet filter does for a family, None where the bridge has no address of it."""
    own = address(config, family)
    if own is None:
        return None
    return Side(
        subnet=str(own),
        routing=BRIDGE.is_true(config, f"{family}.routing"),
        nat=BRIDGE.is_true(config, f"{family}.nat"),
        nat_address=config.get(f"{family}.nat.address", ""),
        nat_first=BRIDGE.value(config, f"{family}.nat.order") == "before",
    )


def way(name: str, config: Config) -> Way | None:
    """Return what other firewalls have to let pass, None for nothing."""
    families = tuple(f for f in FAMILIES if address(config, f) and BRIDGE.is_true(config, f"{f}.firewall"))
    routed = tuple(f for f in families if not BRIDGE.is_true(config, f"{f}.nat"))
    return Way(interface=name, families=families, routed=routed) if families else None


def settings(name: str, config: Config) -> Settings | None:
    """Return what dnsmasq is to do, None when it has nothing to do."""
    ipv4, ipv6 = _subnet(config, "ipv4"), _subnet(config, "ipv6")
    if ipv4 is None and ipv6 is None:
        return None
    return Settings(
        bridge=name,
        domain=BRIDGE.value(config, "dns.domain"),
        mode=BRIDGE.value(config, "dns.mode"),
        search=tuple(listed(config, "dns.search")),
        mtu=int(BRIDGE.value(config, "bridge.mtu")),
        ipv4=ipv4,
        ipv6=ipv6,
        raw=config.get("raw.dnsmasq", ""),
    )


def _subnet(config: Config, family: str) -> Subnet | None:
    own = address(config, family)
    if own is None:
        return None
    ranges = (text.partition("-") for text in listed(config, f"{family}.dhcp.ranges"))
    return Subnet(
        address=own.ip.compressed,
        prefix=own.network.prefixlen,
        dhcp=BRIDGE.is_true(config, f"{family}.dhcp"),
        ranges=tuple((first.strip(), last.strip()) for first, _, last in ranges),
        expiry=BRIDGE.value(config, f"{family}.dhcp.expiry"),
        gateway=config.get("ipv4.dhcp.gateway", "") if family == "ipv4" else "",
        stateful=family == "ipv6" and BRIDGE.is_true(config, "ipv6.dhcp.stateful"),
    )
