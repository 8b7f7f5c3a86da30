"""Where a managed bridge's traffic goes: translated, routed or not, and interfaces of the host in the bridge."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from pylxc.errors import BadRequest, PylxcError
from tests.support.namespace import NetworkNamespace
from tests.support.networks import Guest, NetworkHost, links, output


def source(guest: Guest, listener: socket.socket) -> str:
    """Return the address from which a guest's packet arrives at a listener in the outside."""
    address, port = listener.getsockname()
    guest.run("bash", "-c", f"echo hello > /dev/udp/{address}/{port}")
    sender: str = listener.recvfrom(100)[1][0]
    return sender


@pytest.fixture
def listener(inside: NetworkNamespace) -> Iterator[socket.socket]:
    """Listen in the outside, on a UDP port."""
    address = inside.add_outside()
    assert inside.outside
    with inside.outside.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind((address, 0))
        found.settimeout(5)
        with inside.entered():
            yield found


def test_source_addresses(host: NetworkHost, listener: socket.socket) -> None:
    host.create(ipv6_address="none")
    guest = host.guest("c01")
    guest.dhcp()
    assert source(guest, listener) == "198.51.100.2"
    for address in ("198.51.100.7", "198.51.100.8"):
        output("ip", "address", "add", f"{address}/32", "dev", "up0")
    host.networks.update("br0", {"ipv4.nat.address": "198.51.100.7"}, None, patch=True)
    assert source(guest, listener) == "198.51.100.7"
    others = (
        "add chain ip o c { type nat hook postrouting priority 100; }; add rule ip o c oif up0 snat to 198.51.100.8"
    )
    output("nft", f"add table ip o; {others}")
    assert source(guest, listener) == "198.51.100.7"
    host.networks.update("br0", {"ipv4.nat.order": "after"}, None, patch=True)
    assert source(guest, listener) == "198.51.100.8"


def test_routing_off(host: NetworkHost, inside: NetworkNamespace) -> None:
    outside = inside.add_outside()
    host.create(ipv6_address="none")
    guest = host.guest("c01")
    guest.dhcp()
    assert guest.pings(outside)
    host.networks.update("br0", {"ipv4.routing": "false"}, None, patch=True)
    assert not guest.pings(outside)
    assert guest.pings(host.gateway)


def test_interfaces_of_the_host(host: NetworkHost, inside: NetworkNamespace) -> None:
    del inside
    for name in ("ext0", "ext1"):
        output("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
        output("ip", "link", "set", f"{name}-peer", "up")
    output("ip", "address", "add", "10.199.7.99/24", "dev", "ext0-peer")
    host.create(**{"ipv4.address": "none", "ipv6.address": "none", "bridge.external_interfaces": "ext0"})
    assert host.dnsmasqs() == []
    guest = host.guest("c01")
    guest.run("ip", "address", "add", "10.199.7.5/24", "dev", "eth0")
    assert guest.pings("10.199.7.99")
    before = (host.networks.get("br0"), output("ip", "-o", "link"))
    output("ip", "address", "add", "192.0.2.1/24", "dev", "ext1")
    bad = {
        "ext0,ext1": "has addresses",
        "ext0,lo": "in use",
        "ext0,br0": "in use",
        "ext0,much-too-long-a-name": "2-15 characters",
    }
    for value, complaint in bad.items():
        with pytest.raises(BadRequest, match=complaint):
            host.networks.update("br0", {"bridge.external_interfaces": value}, None, patch=True)
        assert (host.networks.get("br0"), output("ip", "-o", "link")) == before
    output("ip", "address", "flush", "dev", "ext1")
    host.networks.update("br0", {"bridge.external_interfaces": "ext1"}, None, patch=True)
    assert "master" not in output("ip", "link", "show", "ext0")
    assert "master br0" in output("ip", "link", "show", "ext1")
    with pytest.raises(BadRequest, match=r"bridge\.hwaddr"):
        host.networks.update("br0", {"bridge.hwaddr": "00:16:3e:00:00:07"}, None, patch=True)
    output("ip", "link", "delete", "ext1")  # unplugged
    host.networks.close()
    host.open()
    assert host.networks.get("br0")["status"] == "Created"
    host.networks.delete("br0")
    assert set(links()) == {"lo", "ext0", "ext0-peer", guest.config["volatile.eth0.host_name"]}


def test_a_change_that_fails_leaves_everything_as_it_was(host: NetworkHost) -> None:
    host.create(ipv4_address="10.199.7.1/24", ipv6_address="fd42:7::1/64", ipv4_routes="10.77.0.0/24")
    guest = host.guest("c01")
    address = guest.dhcp()["ip"]

    def everything() -> tuple[object, ...]:
        shown = [sorted(output("ip", "-o", what).splitlines()) for what in ("address", "route")]
        return host.networks.get("br0"), shown, output("nft", "list", "ruleset")

    before = everything()
    pid = host.dnsmasq()
    changes = {"ipv4.address": "10.199.8.1/24", "ipv4.routes": "10.78.0.0/24", "ipv6.address": "none"}
    for bad in ({"raw.dnsmasq": "no-such-option"}, {"bridge.external_interfaces": "lo"}):
        with pytest.raises(PylxcError):
            host.networks.update("br0", changes | bad, None, patch=True)
        assert everything() == before
    assert host.dnsmasq() == pid
    assert guest.pings("10.199.7.1")
    assert guest.dhcp()["ip"] == address
    with pytest.raises(subprocess.CalledProcessError):
        output("ip", "route", "get", "10.78.0.1")
