"""The packet filter's rules of a managed bridge, as plain data for `Firewall.put`.

That traffic of the network is accepted needs no rule of ours: what accepts in one table keeps no other table from
dropping.
"""

from __future__ import annotations

from dataclasses import dataclass

from pylxc.kernel.nftables import (
    MASQUERADE,
    REJECT,
    SRCNAT,
    Chain,
    Expression,
    Hook,
    arriving,
    field,
    leaving,
    match,
    meta,
    snat,
    subnet,
)

# Docker and iptables translate at 100, firewalld at 110.
_BEFORE, _AFTER = SRCNAT - 10, SRCNAT + 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What the firewall does for one address family of a network.

    Attributes:
        subnet: of the bridge, in CIDR notation.
        routing: whether it is routed; false rejects it.
        nat: whether what leaves the subnet is masqueraded.
        nat_address: the source address that it gets, empty for that of the interface it leaves by.
        nat_first: whether this comes before other people's address translation.
    """

    subnet: str
    routing: bool = True
    nat: bool = False
    nat_address: str = ""
    nat_first: bool = True


def chains(name: str, ipv4: Side | None, ipv6: Side | None) -> list[Chain]:
    """Return a network's rules.

    Args:
        name: the bridge.
        ipv4: None where the network has none.
        ipv6: likewise.
    """
    found = []
    for family, side in (("ipv4", ipv4), ("ipv6", ipv6)):
        if side is not None and not side.routing:
            found.append(_unrouted(name, family))
        if side is not None and side.nat:
            found.append(_translated(family, side))
    return found


def _unrouted(name: str, family: str) -> Chain:
    of_family = match(meta("nfproto"), family)
    return Chain(
        name=f"forward-{family}",
        hook=Hook(type="filter", name="forward"),
        rules=((of_family, leaving(name), REJECT), (of_family, arriving(name), REJECT)),
    )


def _translated(family: str, side: Side) -> Chain:
    protocol = "ip" if family == "ipv4" else "ip6"
    inside = match(field(protocol, "saddr"), subnet(side.subnet))
    outside = match(field(protocol, "daddr"), subnet(side.subnet), "!=")
    source: Expression = snat(protocol, side.nat_address) if side.nat_address else MASQUERADE
    return Chain(
        name=f"source-{family}",
        hook=Hook(type="nat", name="postrouting", priority=_BEFORE if side.nat_first else _AFTER),
        rules=((inside, outside, source),),
    )
