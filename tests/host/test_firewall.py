"""Owners' rules in the real packet filter of a network namespace."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from pylxc.drivers.network.firewall import Firewall
from pylxc.errors import Unavailable
from pylxc.kernel import nftables
from pylxc.kernel.nftables import ACCEPT, DROP, Chain, Hook, any_of, field, jump, match, meta, span, subnet
from pylxc.paths import DEFAULT_DIR
from tests.support.daemon import unique
from tests.support.namespace import NetworkNamespace


@pytest.fixture(autouse=True)
def inside() -> Iterator[NetworkNamespace]:
    """Move this thread into a new network namespace for the time of a test."""
    namespace = NetworkNamespace(unique("pt")[:12])
    with namespace.entered():
        yield namespace
    namespace.close()


@pytest.fixture
def firewall() -> Firewall:
    return Firewall(DEFAULT_DIR)


def listed() -> str:
    """Return the whole rule set as nft shows it, in one line."""
    shown = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    return " ".join(shown.split())


def chain(name: str, *rules: tuple[nftables.Expression, ...], family: str = "inet") -> Chain:
    return Chain(name=name, rules=rules, family=family, hook=Hook(type="filter", name="input"))


def test_put_is_exact_and_remove_leaves_the_others(firewall: Firewall) -> None:
    subprocess.run(["nft", "add table inet other; add chain inet other mine"], check=True)
    foreign = listed()
    firewall.put("network", "br0", [chain("in", (match(field("tcp", "dport"), 80), ACCEPT))])
    firewall.put("proxy", "c01.web", [chain("in", (match(field("tcp", "dport"), span(90, 99)), DROP))])
    firewall.put("network", "br0", [chain("other", (match(field("udp", "dport"), 53), ACCEPT))])
    firewall.put("network", "br0", [chain("other", (match(field("udp", "dport"), 53), ACCEPT))])
    shown = listed()
    assert shown.startswith(foreign)
    assert "tcp dport 80" not in shown
    assert shown.count("udp dport 53 accept") == 1
    assert "table inet pylxc.proxy.c01.web { chain in" in shown
    assert "tcp dport 90-99 drop" in shown
    firewall.remove("network", "br0")
    firewall.remove("network", "br0")
    assert "udp" not in listed()
    assert "tcp dport 90-99 drop" in listed()
    firewall.put("proxy", "c01.web", [])
    assert listed() == foreign


def test_families_chains_and_sets(firewall: Firewall) -> None:
    subprocess.run(["ip", "link", "add", "d0", "type", "bridge"], check=True)
    mac = match(field("ether", "saddr"), "00:16:3e:00:00:01", "!=")
    sources = match(field("ip", "saddr"), any_of(["10.0.0.1", subnet("10.1.2.3/24")]))
    firewall.put(
        "nic",
        "c01.eth0",
        [
            chain("in", (match(meta("iifname"), "veth1"), jump("checks")), family="bridge"),
            Chain(name="checks", rules=((mac, DROP), (sources, ACCEPT)), family="bridge"),
            Chain(
                name="ingress",
                rules=((mac, DROP),),
                family="netdev",
                hook=Hook(type="filter", name="ingress", device="d0"),
            ),
        ],
    )
    shown = listed()
    assert 'chain in { type filter hook input priority 0; policy accept; iifname "veth1" jump checks' in shown
    assert "ether saddr != 00:16:3e:00:00:01 drop ip saddr { 10.0.0.1, 10.1.2.0/24 } accept" in shown
    assert "hook ingress device" in shown
    subprocess.run(["ip", "link", "delete", "d0"], check=True)
    firewall.remove("nic", "c01.eth0")
    assert listed() == ""


def test_a_refused_transaction_changes_nothing(firewall: Firewall) -> None:
    firewall.put("network", "br0", [chain("in", (match(field("tcp", "dport"), 80), ACCEPT))])
    before = listed()
    with pytest.raises(Unavailable, match="firewall's rules: "):
        firewall.put("network", "br0", [chain("in", (jump("nowhere"),))])
    assert listed() == before


def test_sweep_and_neighbours(firewall: Firewall) -> None:
    rules = [chain("in", (match(field("tcp", "dport"), 80), ACCEPT))]
    other = Firewall("/somewhere/else")
    for owner in ("br0", "br0.1", "br0/10.0.0.1", "fd42::1"):
        firewall.put("network", owner, rules)
    firewall.put("net", "x", rules)
    other.put("network", "br9", rules)
    firewall.sweep("network", {"br0", "fd42::1"})
    tables = re.findall(r"table \S+ (\S+)", listed())
    assert tables[:3] == ["pylxc.network.br0", "pylxc.network.fd42/3a//3a/1", "pylxc.net.x"]
    assert tables[3].endswith(".network.br9")
    firewall.sweep("network", ())
    assert "network.br9" in listed()
    other.sweep("network", ())
    assert listed().count("table") == 1
