"""Firewall and NAT rules of managed networks, in a table of pylxc's own; nobody else's rules are read or changed.

Each network has base chains of its own, so that a change of one network is one transaction that touches only it.
See: libnftables-json(5)
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from pylxc.errors import Unavailable
from pylxc.kernel import command

FAMILY = "inet"
TABLE = "pylxc"

# chain -> (type, hook, priority). See: nft(8), "Standard priority names"
_CHAINS = {"in": ("filter", "input", 0), "fwd": ("filter", "forward", 0), "pstrt": ("nat", "postrouting", 100)}

_DHCP = {"ip": "67", "ip6": "547"}

Command = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What the firewall does for one address family of a network.

    Attributes:
        subnet: of the bridge, in CIDR notation.
        firewall: whether traffic is let pass.
        routing: whether it is routed; false rejects it.
        nat: whether what leaves the subnet is masqueraded.
        nat_address: the source address that it gets, empty for that of the interface it leaves by.
    """

    subnet: str
    firewall: bool = True
    routing: bool = True
    nat: bool = False
    nat_address: str = ""


def rules(name: str, ipv4: Side | None, ipv6: Side | None) -> list[Command]:
    """Return the transaction that makes a network's rules what they should be, whatever they were.

    Args:
        name: the bridge.
        ipv4: None where the network has none.
        ipv6: likewise.
    """
    commands = _emptied(name)
    for protocol, side in (("ip", ipv4), ("ip6", ipv6)):
        if side is not None:
            commands += _of_side(name, protocol, side)
    return commands


def remove(name: str) -> None:
    """Remove a network's rules, also when there are none; the last one takes the table with it. Raises as `apply`."""
    apply(_emptied(name) + [{"delete": {"chain": _chain(kind, name)}} for kind in _CHAINS])
    listed = command.run(["nft", "-j", "list", "table", FAMILY, TABLE], check=False)
    if listed.returncode == 0 and not any("chain" in item for item in json.loads(listed.stdout)["nftables"]):
        apply([{"delete": {"table": {"family": FAMILY, "name": TABLE}}}])


def apply(commands: list[Command]) -> None:
    """Run a transaction: all of it or nothing.

    Raises:
        Unavailable: nft is missing, or the kernel refuses.
    """
    text = json.dumps({"nftables": commands})
    try:
        command.run(["nft", "-j", "-f", "-"], input=text)
    except command.CommandFailed as error:
        raise Unavailable(f"Cannot set the firewall's rules: {error.message}") from error


def _chain(kind: str, name: str) -> Command:
    return {"family": FAMILY, "table": TABLE, "name": f"{kind}.{name}"}


def _emptied(name: str) -> list[Command]:
    commands: list[Command] = [{"add": {"table": {"family": FAMILY, "name": TABLE}}}]
    for kind, (type_, hook, priority) in _CHAINS.items():
        base = {"type": type_, "hook": hook, "prio": priority, "policy": "accept"}
        commands.append({"add": {"chain": _chain(kind, name) | base}})
        commands.append({"flush": {"chain": _chain(kind, name)}})
    return commands


def _of_side(name: str, protocol: str, side: Side) -> list[Command]:
    family = _match({"meta": {"key": "nfproto"}}, "ipv4" if protocol == "ip" else "ipv6")
    arriving = _match({"meta": {"key": "iifname"}}, name)
    leaving = _match({"meta": {"key": "oifname"}}, name)
    commands = []
    if side.firewall:
        for port, transport in (("53", "tcp"), ("53", "udp"), (_DHCP[protocol], "udp")):
            to_port = _match({"payload": {"protocol": transport, "field": "dport"}}, int(port))
            commands.append(_rule("in", name, family, arriving, to_port, {"accept": None}))
    if side.firewall or not side.routing:
        verdict = {"accept": None} if side.routing else {"reject": None}
        commands.append(_rule("fwd", name, family, leaving, verdict))
        commands.append(_rule("fwd", name, family, arriving, verdict))
    if side.nat:
        network = ipaddress.ip_network(side.subnet, strict=False)
        subnet = {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}
        inside = _match({"payload": {"protocol": protocol, "field": "saddr"}}, subnet)
        outside = _match({"payload": {"protocol": protocol, "field": "daddr"}}, subnet, "!=")
        source = {"snat": {"family": protocol, "addr": side.nat_address}} if side.nat_address else {"masquerade": None}
        commands.append(_rule("pstrt", name, inside, outside, source))
    return commands


def _match(left: Command, right: object, operator: str = "==") -> Command:
    return {"match": {"op": operator, "left": left, "right": right}}


def _rule(kind: str, name: str, *expressions: Command) -> Command:
    place = {"family": FAMILY, "table": TABLE, "chain": f"{kind}.{name}"}
    return {"add": {"rule": place | {"expr": list(expressions)}}}
