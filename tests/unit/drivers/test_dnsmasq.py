"""dnsmasq's configuration and files."""

from __future__ import annotations

import time
from pathlib import Path

from pylxc.drivers.network.dnsmasq import Dnsmasq, Settings, Subnet, render
from pylxc.drivers.network.driver import Host, Lease

IPV4 = Subnet(address="10.1.2.1", prefix=24)
IPV6 = Subnet(address="fd42::1", prefix=64)


def lines(settings: Settings) -> list[str]:
    return render(settings, "/d", "nobody").splitlines()


def test_defaults() -> None:
    text = lines(Settings(bridge="br0", ipv4=IPV4, ipv6=IPV6))
    for line in (
        "interface=br0",
        "bind-interfaces",
        "except-interface=lo",
        "user=nobody",
        "domain=lxd",
        "local=/lxd/",
        "dhcp-range=10.1.2.2,10.1.2.254,1h",
        "dhcp-range=::,constructor:br0,ra-stateless,ra-names",
        "dhcp-ignore-names=tag:!known",
    ):
        assert line in text


def test_ranges_gateway_and_mtu() -> None:
    side = Subnet(
        address="10.1.2.254", prefix=24, ranges=(("10.1.2.10", "10.1.2.20"),), expiry="2d", gateway="10.1.2.9"
    )
    text = lines(Settings(bridge="br0", ipv4=side, mtu=1400, search=("a.example", "b.example")))
    assert "dhcp-range=10.1.2.10,10.1.2.20,2d" in text
    assert "dhcp-option=option:router,10.1.2.9" in text
    assert "dhcp-option=option:mtu,1400" in text
    assert "dhcp-option=option:domain-search,a.example,b.example" in text
    assert "dhcp-range=10.1.2.1,10.1.2.253,1h" in lines(
        Settings(bridge="br0", ipv4=Subnet(address="10.1.2.254", prefix=24))
    )


def test_modes() -> None:
    none = lines(Settings(bridge="br0", ipv4=IPV4, mode="none"))
    assert "dhcp-ignore-names" in none
    assert not any(line.startswith("domain=") for line in none)
    assert "dhcp-ignore-names=tag:!known" not in lines(Settings(bridge="br0", ipv4=IPV4, mode="dynamic"))


def test_no_dhcp_and_stateful_ipv6() -> None:
    quiet = lines(Settings(bridge="br0", ipv4=Subnet(address="10.1.2.1", prefix=24, dhcp=False)))
    assert not any(line.startswith("dhcp-") for line in quiet)
    stateful = lines(Settings(bridge="br0", ipv6=Subnet(address="fd42::1", prefix=64, stateful=True)))
    assert "dhcp-range=fd42::2,fd42::ffff:ffff:ffff:ffff,64,1h" in stateful
    few = Subnet(address="fd42::1", prefix=64, stateful=True, ranges=(("::5", "::9"),))
    assert "dhcp-range=::5,::9,constructor:br0,64,1h" in lines(Settings(bridge="br0", ipv6=few))


def test_raw_lines_come_last() -> None:
    assert lines(Settings(bridge="br0", ipv4=IPV4, raw="address=/x/1.2.3.4\nlog-queries"))[-2:] == [
        "address=/x/1.2.3.4",
        "log-queries",
    ]


def test_hosts(tmp_path: Path) -> None:
    dnsmasq = Dnsmasq(str(tmp_path / "net"))
    host = Host(hwaddr="00:16:3e:00:00:01", name="c1", ipv4="10.1.2.9", ipv6="fd42::9")
    dnsmasq.set_host("c1.eth0", host)
    dnsmasq.set_host("c2.eth0", Host(hwaddr="00:16:3e:00:00:02", name="c2"))
    assert (tmp_path / "net/hosts/c1.eth0").read_text() == "# c1\n00:16:3e:00:00:01,10.1.2.9,[fd42::9],c1\n"
    (tmp_path / "net/hosts/damaged").write_text("x")
    (tmp_path / "net/hosts/.c1.eth0").write_text((tmp_path / "net/hosts/c1.eth0").read_text())
    assert dnsmasq.hosts() == {"c1.eth0": host, "c2.eth0": Host(hwaddr="00:16:3e:00:00:02", name="c2")}
    dnsmasq.forget_host("c1.eth0")
    dnsmasq.forget_host("c1.eth0")
    assert list(dnsmasq.hosts()) == ["c2.eth0"]


def test_leases_with_damaged_lines(tmp_path: Path) -> None:
    soon = int(time.time()) + 1000
    (tmp_path / "dnsmasq.leases").write_bytes(
        f"{soon} 00:16:3e:00:00:01 10.1.2.9 c1 01:00\n".encode()
        + f"{soon - 5000} 00:16:3e:00:00:02 10.1.2.10 expired *\n".encode()
        + b"\xff\xfe garbage\nduid 00:01\n1\n"
        + f"{soon} 1234 fd42::5 * 00:01\n".encode()
        + b"0 00:16:3e:00:00:03 10.1.2.11 * *\n"
    )
    assert Dnsmasq(str(tmp_path)).leases() == [
        Lease(address="10.1.2.9", hwaddr="00:16:3e:00:00:01", hostname="c1"),
        Lease(address="fd42::5", hwaddr="", hostname=""),
        Lease(address="10.1.2.11", hwaddr="00:16:3e:00:00:03", hostname=""),
    ]
