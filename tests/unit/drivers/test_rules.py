"""The rules of a managed bridge as plain data."""

from __future__ import annotations

from pylxc.drivers.network import rules
from pylxc.drivers.network.rules import Side
from pylxc.kernel.nftables import MASQUERADE, REJECT


def test_nat_masquerades_what_leaves_the_subnet() -> None:
    (chain,) = rules.chains("br0", Side(subnet="10.1.2.1/24", nat=True), None)
    ((inside, outside, action),) = chain.rules
    assert inside["match"]["right"] == {"prefix": {"addr": "10.1.2.0", "len": 24}}
    assert outside["match"]["op"] == "!="
    assert action == MASQUERADE
    side = Side(subnet="fd42::1/64", nat=True, nat_address="2001:db8::1", nat_first=False)
    (late,) = rules.chains("br0", None, side)
    assert late.rules[0][-1] == {"snat": {"family": "ip6", "addr": "2001:db8::1"}}
    assert chain.hook
    assert late.hook
    assert chain.hook.priority < 100 < late.hook.priority


def test_no_rules_without_need() -> None:
    assert rules.chains("br0", Side(subnet="10.1.2.1/24"), None) == []


def test_routing_off() -> None:
    (chain,) = rules.chains("br0", Side(subnet="10.1.2.1/24", routing=False), None)
    assert [rule[-1] for rule in chain.rules] == [REJECT, REJECT]
