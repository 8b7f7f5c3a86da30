"""What guests on a managed bridge get: addresses, names, routes; every key by the effect that it has inside."""

from __future__ import annotations

from pathlib import Path

from tests.support import dhcp6
from tests.support.networks import NetworkHost, output
from tests.support.wait import until


def test_dhcp(host: NetworkHost) -> None:
    host.create(
        ipv4_address="10.199.7.1/24",
        ipv4_dhcp_ranges="10.199.7.50-10.199.7.50, 10.199.7.60-10.199.7.61",
        ipv4_dhcp_expiry="2h",
        ipv4_dhcp_gateway="10.199.7.9",
        dns_domain="example.test",
        dns_search="a.test, b.test",
        bridge_mtu="1400",
    )
    one, two = host.guest("c01"), host.guest("c02")
    leased = one.dhcp()
    assert leased["ip"] in ("10.199.7.50", "10.199.7.60", "10.199.7.61")
    assert (leased["router"], leased["lease"], leased["mtu"]) == ("10.199.7.9", "7200", "1400")
    assert (leased["domain"], leased["search"]) == ("example.test", "a.test")
    two.dhcp()
    assert leased["ip"] in two.resolve("c01.example.test")
    assert "example.test" in two.run("busybox", "nslookup", leased["ip"], host.gateway)
    host.networks.update("br0", {"ipv4.dhcp.ranges": "10.199.7.70-10.199.7.79"}, None, patch=True)
    assert two.dhcp()["ip"].startswith("10.199.7.7")
    host.networks.update("br0", {"ipv4.dhcp": "false"}, None, patch=True)
    client = ("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-t", "2", "-T", "1")
    assert "no lease" in two.run(*client, check=False)


def test_names(host: NetworkHost) -> None:
    host.create(dns_mode="dynamic", raw_dnsmasq="address=/host.test/192.0.2.7")
    one, two = host.guest("c01"), host.guest("c02")
    address = one.dhcp(hostname="chosen")["ip"]
    two.dhcp()
    assert address in two.resolve("chosen.lxd")
    assert address not in two.resolve("c01.lxd")
    assert "192.0.2.7" in two.resolve("host.test")
    host.networks.update("br0", {"dns.mode": "none"}, None, patch=True)
    assert one.dhcp(hostname="chosen")["ip"] == address
    assert address not in two.resolve("chosen.lxd")
    assert "192.0.2.7" in two.resolve("host.test")
    host.networks.update("br0", {"dns.mode": "managed"}, None, patch=True)
    one.dhcp(hostname="chosen")
    assert address in two.resolve("c01.lxd")
    assert address not in two.resolve("chosen.lxd")
    names = {lease["address"]: lease["hostname"] for lease in host.networks.leases("br0")}
    assert names[address] == "c01"


def test_ipv6_by_advertisements(host: NetworkHost) -> None:
    host.create(ipv4_address="none", ipv6_address="fd42:7::1/64")
    one = host.guest("c01")
    until(lambda: "fd42:7::" in one.run("ip", "-6", "address", "show", "dev", "eth0"), "an address is made")
    until(lambda: "default via fe80::" in one.run("ip", "-6", "route"), "there is a default route")
    until(lambda: "tentative" not in one.run("ip", "-6", "address"), "it may be used")
    assert one.pings("fd42:7::1")
    (address,) = (lease["address"] for lease in host.networks.leases("br0") if lease["type"] == "dynamic")
    assert f"{address}/64" in one.run("ip", "-6", "address", "show", "dev", "eth0")


def test_ipv6_by_dhcp(host: NetworkHost) -> None:
    host.create(ipv4_address="none", ipv6_address="fd42:7::1/112", ipv6_dhcp_stateful="true")
    one, two = host.guest("c01"), host.guest("c02", {"ipv6.address": "fd42:7::77"})
    for guest in (one, two):
        until(lambda guest=guest: "tentative" not in guest.run("ip", "-6", "address"), "DAD is done")  # type: ignore[misc]
    with one.entered():
        address, server = dhcp6.lease("eth0", one.hwaddr)
    assert address.startswith("fd42:7::")
    assert server == "fd42:7::1"
    with two.entered():
        assert dhcp6.lease("eth0", two.hwaddr)[0] == "fd42:7::77"
    kinds = {lease["address"]: lease["type"] for lease in host.networks.leases("br0")}
    assert kinds == {"fd42:7::1": "gateway", "fd42:7::77": "static", address: "dynamic"}
    host.networks.update("br0", {"ipv6.dhcp.ranges": "fd42:7::100-fd42:7::1ff"}, None, patch=True)
    with one.entered():
        assert dhcp6.lease("eth0", one.hwaddr)[0] > "fd42:7::1"


def test_without_ipv6_the_bridge_has_no_address_to_guess(host: NetworkHost) -> None:
    host.create(ipv6_address="none")
    assert "inet6" not in output("ip", "address", "show", "br0")
    host.networks.update("br0", {"ipv6.address": "fd42:7::1/64"}, None, patch=True)
    assert "fd42:7::1/64" in output("ip", "address", "show", "br0")
    host.networks.update("br0", {"ipv6.address": "fd42:7::1/80", "ipv6.dhcp": "false"}, None, patch=True)
    assert "fd42:7::1/80" in output("ip", "address", "show", "br0")
    host.networks.update("br0", {"ipv6.address": "none"}, None, patch=True)
    assert "inet6" not in output("ip", "address", "show", "br0")


def test_routes_outlive_a_change_of_address(host: NetworkHost) -> None:
    host.create(ipv4_address="10.199.7.1/24", ipv6_address="fd42:7::1/64", ipv4_routes="10.77.0.0/24, 10.78.0.0/24")
    output("ip", "route", "add", "10.79.0.0/24", "dev", "br0")  # of a NIC, or by hand
    guest = host.guest("c01")
    guest.run("ip", "address", "add", "10.77.0.5/32", "dev", "eth0")
    guest.run("ip", "route", "add", "default", "dev", "eth0")
    output("busybox", "ping", "-c1", "-W1", "10.77.0.5")
    changed = {"ipv4.address": "10.199.8.1/24", "ipv4.routes": "10.77.0.0/24", "ipv6.routes": "fd42:8::/64"}
    host.networks.update("br0", changed, None, patch=True)
    shown = output("ip", "route") + output("ip", "-6", "route")
    assert "10.78.0.0/24" not in shown
    for destination in ("10.77.0.0/24", "10.79.0.0/24", "10.199.8.0/24", "fd42:8::/64"):
        assert f"{destination} dev br0" in shown
    host.networks.update("br0", {"ipv4.routes": "", "ipv6.routes": ""}, None, patch=True)
    shown = output("ip", "route") + output("ip", "-6", "route")
    assert "10.77.0.0/24" not in shown
    assert "fd42:8::/64" not in shown
    assert "10.79.0.0/24" in shown


def test_interface_and_notes(host: NetworkHost) -> None:
    host.create(ipv6_address="none", user_note="mine")
    before = output("ip", "link", "show", "br0")
    host.networks.update("br0", {"bridge.hwaddr": "00:16:3E:AA:BB:CC", "bridge.mtu": "9000"}, None, patch=True)
    shown = output("ip", "link", "show", "br0")
    assert "mtu 9000" in shown
    assert "00:16:3e:aa:bb:cc" in shown
    assert host.networks.get("br0")["config"]["user.note"] == "mine"
    host.networks.update("br0", {"bridge.hwaddr": "", "bridge.mtu": ""}, None, patch=True)
    assert output("ip", "link", "show", "br0") == before


def test_leases_of_a_damaged_file(host: NetworkHost) -> None:
    host.create(ipv6_address="none")
    one = host.guest("c01")
    address = one.dhcp()["ip"]
    file = Path(host.paths.network("br0"), "dnsmasq.leases")
    damaged = file.read_bytes() + b"\0\xff damaged\n17"
    file.write_bytes(damaged)
    host.networks.update("br0", {"dns.search": "a.test"}, None, patch=True)
    assert Path(f"{file}.damaged").read_bytes() == damaged
    assert [lease["address"] for lease in host.networks.leases("br0") if lease["type"] == "dynamic"] == [address]
    assert host.guest("c02").dhcp()["ip"] != address
    assert one.dhcp()["ip"] == address
