"""Rules that let an instance use no other addresses than its own."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from pylxc.config.device import NIC_BRIDGED
from pylxc.drivers.device.driver import Context
from pylxc.drivers.device.nic import listed
from pylxc.kernel import nftables as nft
from pylxc.kernel.nftables import Chain, Expression, Hook

_Rule = tuple[Expression, ...]

_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 133, 134, 135, 136


def is_filtered(device: Mapping[str, str]) -> bool:
    """Return whether any of the filters is on; those of addresses hold the MAC address as well."""
    return any(NIC_BRIDGED.is_true(device, f"security.{what}_filtering") for what in ("mac", "ipv4", "ipv6"))


def chains(context: Context, host_name: str, hwaddr: str) -> list[Chain]:
    """Return the chains for a NIC.

    Args:
        context: the NIC.
        host_name: of its end on the host.
        hwaddr: its MAC address.
    """
    if not is_filtered(context.device):
        return []
    rules = (*_mac(hwaddr), *_ipv4(context), *_ipv6(context), *_frames(context))
    hook = Hook(type="filter", name="prerouting", priority=nft.BRIDGE_FILTER)
    return [Chain(name="from", family="bridge", hook=hook, rules=tuple((nft.arriving(host_name), *r) for r in rules))]


def _mac(hwaddr: str) -> list[_Rule]:
    own = int(hwaddr.replace(":", ""), 16)
    return [
        (nft.match(nft.field("ether", "saddr"), hwaddr, "!="), nft.DROP),
        (_is("arp"), nft.match(nft.field("arp", "saddr ether"), hwaddr, "!="), nft.DROP),
        # The link-layer address that a neighbour advertisement tells, behind type, flags, target and option header.
        (_is("ip6"), _icmp(_NEIGHBOUR_ADVERTISEMENT), nft.match(_raw(208, 48), f"0x{own:012x}", "!="), nft.DROP),
    ]


def _ipv4(context: Context) -> list[_Rule]:
    networks = _allowed(context, "ipv4")
    if networks is None:
        return []
    rules: list[_Rule] = []
    if networks:
        nowhere = nft.match(nft.field("ip", "saddr"), "0.0.0.0")  # noqa: S104 - an address in a packet
        everybody = nft.match(nft.field("ip", "daddr"), "255.255.255.255")
        rules.append((_is("ip"), nowhere, everybody, nft.match(nft.field("udp", "dport"), 67), nft.ACCEPT))
    for network in networks:
        rules.append((_is("arp"), nft.match(nft.field("arp", "saddr ip"), nft.subnet(network)), nft.ACCEPT))
        rules.append((_is("ip"), nft.match(nft.field("ip", "saddr"), nft.subnet(network)), nft.ACCEPT))
    return [*rules, (_is("arp"), nft.DROP), (_is("ip"), nft.DROP)]


def _ipv6(context: Context) -> list[_Rule]:
    networks = _allowed(context, "ipv6")
    if networks is None:
        return []
    rules: list[_Rule] = [(_is("ip6"), _icmp(_ROUTER_ADVERTISEMENT), nft.DROP)]
    if networks:
        link = nft.match(nft.field("ip6", "saddr"), nft.subnet("fe80::/10"))
        unset = nft.match(nft.field("ip6", "saddr"), "::")
        to_servers = nft.match(nft.field("ip6", "daddr"), "ff02::1:2")
        to_routers = nft.match(nft.field("ip6", "daddr"), "ff02::2")
        rules += [
            (_is("ip6"), link, to_servers, nft.match(nft.field("udp", "dport"), 547), nft.ACCEPT),
            (_is("ip6"), link, to_routers, _icmp(_ROUTER_SOLICITATION), nft.ACCEPT),
            (_is("ip6"), unset, _icmp(_NEIGHBOUR_SOLICITATION), nft.ACCEPT),
        ]
    for network in networks:
        prefix = ipaddress.IPv6Network(network, strict=False)
        target = int(prefix.network_address) >> (128 - prefix.prefixlen)
        advertised = nft.match(_raw(64, prefix.prefixlen), f"{target:#x}")
        rules.append((_is("ip6"), _icmp(_NEIGHBOUR_ADVERTISEMENT), advertised, nft.ACCEPT))
    rules.append((_is("ip6"), _icmp(_NEIGHBOUR_ADVERTISEMENT), nft.DROP))
    for network in networks:
        rules.append((_is("ip6"), nft.match(nft.field("ip6", "saddr"), nft.subnet(network)), nft.ACCEPT))
    return [*rules, (_is("ip6"), nft.DROP)]


def _frames(context: Context) -> list[_Rule]:
    """Drop what the filters of addresses cannot see: other protocols, and what travels in a VLAN."""
    if all(_allowed(context, family) is None for family in ("ipv4", "ipv6")):
        return []
    return [(nft.match(nft.field("ether", "type"), nft.any_of(["arp", "ip", "ip6"]), "!="), nft.DROP)]


def _allowed(context: Context, family: str) -> Sequence[str] | None:
    """Return the networks whose addresses a NIC may use, None for all."""
    device = context.device
    if not NIC_BRIDGED.is_true(device, f"security.{family}_filtering"):
        return None
    address = context.address(family)
    return [address, *listed(device, f"{family}.routes")] if address else []


def _is(protocol: str) -> Expression:
    return nft.match(nft.field("ether", "type"), protocol)


def _icmp(kind: int) -> Expression:
    return nft.match(nft.field("icmpv6", "type"), kind)


def _raw(offset: int, length: int) -> Expression:
    return {"payload": {"base": "th", "offset": offset, "len": length}}
