"""Networks beside other programs' firewalls that drop what they do not know: real rules in a network namespace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from pylxc.db import models
from pylxc.services.networks.guard import QUIET_SECONDS
from tests.support.namespace import NetworkNamespace
from tests.support.networks import NetworkHost, output
from tests.support.wait import until

# What Docker 27 and ufw 0.36 leave of their chains where they are on, as far as others meet it.
DOCKER = """
*filter
:FORWARD DROP
:DOCKER-USER -
:DOCKER-ISOLATION-STAGE-1 -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
UFW = """
*filter
:INPUT DROP
:FORWARD DROP
:ufw-before-input -
:ufw-user-input -
:ufw-user-forward -
-A INPUT -j ufw-before-input
-A INPUT -j ufw-user-input
-A ufw-before-input -i lo -j ACCEPT
-A FORWARD -j ufw-user-forward
COMMIT
"""
NFT = """
table inet filter {
    chain input { type filter hook input priority 0; policy drop; iif lo accept; }
    chain forward { type filter hook forward priority 0; ct state invalid drop; counter log reject; }
}
"""


def load(text: str) -> None:
    """Load rules as `iptables-restore`, or as `nft -f` where they say so."""
    command = ["nft", "-f", "-"] if text.lstrip().startswith("table") else ["iptables-restore"]
    subprocess.run(command, input=text, text=True, check=True)


def ruleset() -> str:
    """Return what the firewalls' own tools show, without counters."""
    saved = (line for line in output("iptables-save").splitlines() if not line.startswith("#"))
    return output("nft", "-s", "list", "ruleset") + "\n".join(line.partition(" [")[0] for line in saved)


def reaches(host: NetworkHost, guest: str, outside: str) -> bool:
    """Return whether a guest gets an answer from the outside."""
    return " 0% packet loss" in host.find(guest).run("busybox", "ping", "-c1", "-W1", outside, check=False)


@pytest.mark.parametrize("rules", [DOCKER, UFW, NFT], ids=["docker", "ufw", "nft"])
def test_out_through_a_firewall_that_was_there(
    host: NetworkHost, inside: NetworkNamespace, need: Callable[..., None], rules: str
) -> None:
    need("iptables")
    outside = inside.add_outside()
    load(rules)
    before = ruleset()
    host.create(ipv6_address="none")
    guest = host.guest("c01")
    guest.dhcp()
    assert reaches(host, "c01", outside)
    host.networks.update("br0", {"ipv4.firewall": "false"}, None, patch=True)
    assert not reaches(host, "c01", outside)
    host.networks.update("br0", {"ipv4.firewall": "true"}, None, patch=True)
    assert reaches(host, "c01", outside)
    host.networks.delete("br0")
    assert ruleset() == before


@pytest.mark.parametrize("rules", [DOCKER, UFW, NFT], ids=["docker", "ufw", "nft"])
def test_a_firewall_that_comes_later_and_reloads(
    host: NetworkHost, inside: NetworkNamespace, need: Callable[..., None], rules: str
) -> None:
    need("iptables")
    outside = inside.add_outside()
    host.create(ipv6_address="none")
    host.guest("c01").dhcp()
    load(rules)
    until(lambda: reaches(host, "c01", outside), "the way is open")
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    load(rules)
    until(lambda: reaches(host, "c01", outside), "the way is open again, and NAT is back")
    # Once all is as it has to be, looking changes nothing: each change would have it looked again.
    until(
        lambda: "br0" in output("iptables-save") or "br0" in output("nft", "list", "table", "inet", "filter"), "rules"
    )
    handles = output("nft", "-a", "list", "ruleset")
    host.networks.firewall.restore()
    assert output("nft", "-a", "list", "ruleset") == handles


def test_a_firewall_keeps_the_outside_out(
    host: NetworkHost, inside: NetworkNamespace, need: Callable[..., None]
) -> None:
    need("iptables")
    inside.add_outside()
    load(DOCKER)
    host.create(ipv4_address="10.199.7.1/24", ipv6_address="none")
    guest = host.guest("c01")
    address = guest.dhcp()["ip"]
    assert inside.outside
    subprocess.run(
        ["ip", "-n", inside.outside.name, "route", "add", "10.199.7.0/24", "via", "198.51.100.2"], check=True
    )
    ping = inside.outside.command("busybox", "ping", "-c1", "-W1", address)
    # Without NAT guests are to be reached.
    assert subprocess.run(ping, capture_output=True, check=False).returncode == 0
    host.networks.update("br0", {"ipv4.nat": "true"}, None, patch=True)
    assert subprocess.run(ping, capture_output=True, check=False).returncode == 1


def test_what_a_crash_left_is_taken_away(host: NetworkHost, need: Callable[..., None]) -> None:
    need("iptables")
    load(DOCKER)
    load(NFT)
    before = ruleset()
    host.create(ipv6_address="none")
    assert ruleset().count("network.br0/") > 5
    host.networks.close()
    with host.db.transaction() as session:
        session.query(models.Network).delete()
    subprocess.run(["ip", "link", "delete", "br0"], check=True)
    for pid in host.dnsmasqs():
        os.kill(pid, signal.SIGTERM)
    host.open()
    assert ruleset() == before


def test_rules_that_are_flushed_come_back(host: NetworkHost) -> None:
    host.create()
    before = output("nft", "-s", "list", "ruleset")
    assert "masquerade" in before
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    until(lambda: output("nft", "-s", "list", "ruleset") == before, "the rules are back", 10 * QUIET_SECONDS)
