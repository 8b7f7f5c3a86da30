"""Redirected addresses: what arrives at one of the host's goes to an instance, by the packet filter alone.

Plain data, for network forwards and for proxy devices in nat mode. See: nft(8), "NAT statements"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pylxc.kernel.nftables import (
    DSTNAT,
    MASQUERADE,
    SRCNAT,
    Chain,
    Expression,
    Hook,
    any_of,
    dnat,
    dnat_by_port,
    field,
    match,
    original,
    span,
    subnet,
)

_BEFORE_OTHERS = 10
"""How much earlier than Docker's and firewalld's rules these come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Ports of an address that go to another one.

    Attributes:
        protocol: tcp or udp; empty for everything that no other redirect of the address takes.
        listen: the host's address.
        ports: of it, in the order of their targets; none with an empty protocol.
        target: where they go.
        target_ports: one for each, one for all, or none for the same ones.
    """

    protocol: str
    listen: str
    ports: tuple[int, ...] = ()
    target: str
    target_ports: tuple[int, ...] = ()

    def overlap(self, other: Redirect) -> str:
        """Return what two redirects both take, in words; empty for nothing."""
        if self.listen != other.listen:
            return ""
        if not self.protocol or not other.protocol:
            return f"address {self.listen}"
        if self.protocol != other.protocol:
            return ""
        both = sorted(set(self.ports) & set(other.ports))
        return f"{self.protocol} port {both[0]} of {self.listen}" if both else ""


def chains(redirects: Sequence[Redirect], local: str) -> list[Chain]:
    """Return the rules of redirects of one address.

    Args:
        redirects: all of the same IP version; one that takes everything comes last.
        local: the subnet of the targets, empty when it is not known: a client there gets its answer by way of the
            host, where it is translated back.
    """
    if not redirects:
        return []
    family = "ip6" if ":" in redirects[0].listen else "ip"
    rules = tuple(rule for redirect in redirects for rule in _rules(family, redirect))
    listens = any_of(sorted({redirect.listen for redirect in redirects}))
    hairpin: tuple[tuple[Expression, ...], ...] = ()
    if local:
        back = (match(original(family, "daddr"), listens), match(field(family, "saddr"), subnet(local)), MASQUERADE)
        hairpin = (back,)
    priority = DSTNAT - _BEFORE_OTHERS
    return [
        Chain(name="arriving", hook=Hook(type="nat", name="prerouting", priority=priority), rules=rules),
        Chain(name="own", hook=Hook(type="nat", name="output", priority=priority), rules=rules),
        Chain(
            name="hairpin",
            hook=Hook(type="nat", name="postrouting", priority=SRCNAT - 2 * _BEFORE_OTHERS),
            rules=hairpin,
        ),
    ]


def _rules(family: str, redirect: Redirect) -> Iterator[tuple[Expression, ...]]:
    here = match(field(family, "daddr"), redirect.listen)
    if not redirect.protocol:
        yield here, dnat(family, redirect.target)
        return
    port = field(redirect.protocol, "dport")
    ports = match(port, any_of(span(first, last) for first, last in _spans(redirect.ports)))
    if redirect.target_ports in ((), redirect.ports):
        yield here, ports, dnat(family, redirect.target)
    elif len(redirect.target_ports) == 1:
        yield here, ports, dnat(family, redirect.target, redirect.target_ports[0])
    else:
        pairs = zip(redirect.ports, redirect.target_ports, strict=True)
        yield here, ports, dnat_by_port(family, redirect.target, port, dict(pairs))


def _spans(ports: Iterable[int]) -> list[tuple[int, int]]:
    """Return the ranges that ports make up."""
    found: list[tuple[int, int]] = []
    for port in sorted(ports):
        if found and found[-1][1] == port - 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found
