"""Transactions for nft."""

from __future__ import annotations

import json
from typing import Any

from pylxc.drivers.network import nftables
from pylxc.drivers.network.nftables import Side


def _rules(commands: list[dict[str, Any]], chain: str) -> list[str]:
    """Return the rules of a chain as JSON text."""
    added = (c["add"]["rule"] for c in commands if "rule" in c.get("add", {}))
    return [json.dumps(rule["expr"]) for rule in added if rule["chain"] == chain]


def test_a_transaction_replaces_what_was_there() -> None:
    commands = nftables.rules("br0", Side(subnet="10.1.2.1/24"), None)
    first_rule = next(i for i, c in enumerate(commands) if "rule" in c.get("add", {}))
    flushed = {c["flush"]["chain"]["name"] for c in commands[:first_rule] if "flush" in c}
    assert flushed == {"in.br0", "fwd.br0", "pstrt.br0"}
    places = [next(iter(c.values())) for c in commands]
    assert all(next(iter(p.values())).get("table", "pylxc") == "pylxc" for p in places)


def test_nat_masquerades_what_leaves_the_subnet() -> None:
    (rule,) = _rules(nftables.rules("br0", Side(subnet="10.1.2.1/24", nat=True), None), "pstrt.br0")
    assert "masquerade" in rule
    assert '"addr": "10.1.2.0", "len": 24' in rule
    (rule,) = _rules(
        nftables.rules("br0", None, Side(subnet="fd42::1/64", nat=True, nat_address="2001:db8::1")), "pstrt.br0"
    )
    assert '"snat": {"family": "ip6", "addr": "2001:db8::1"}' in rule
    assert _rules(nftables.rules("br0", Side(subnet="10.1.2.1/24"), None), "pstrt.br0") == []


def test_dhcp_and_dns_reach_the_host() -> None:
    rules = _rules(nftables.rules("br0", Side(subnet="10.1.2.1/24"), Side(subnet="fd42::1/64")), "in.br0")
    assert len(rules) == 6
    assert sum('"right": 67' in rule for rule in rules) == 1
    assert sum('"right": 547' in rule for rule in rules) == 1


def test_firewall_off_and_routing_off() -> None:
    commands = nftables.rules("br0", Side(subnet="10.1.2.1/24", firewall=False, nat=True), None)
    assert _rules(commands, "in.br0") == []
    assert _rules(commands, "fwd.br0") == []
    assert len(_rules(commands, "pstrt.br0")) == 1
    commands = nftables.rules("br0", Side(subnet="10.1.2.1/24", routing=False), None)
    assert all("reject" in rule for rule in _rules(commands, "fwd.br0"))
