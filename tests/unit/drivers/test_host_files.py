"""What --persist writes into the host's own network configuration, in a root directory of the test's own."""

from __future__ import annotations

import configparser
import logging
from pathlib import Path

import pytest
import yaml

from pylxc.drivers.network import host_clients, host_files, host_ifupdown, host_netplan, host_networkd
from pylxc.errors import BadRequest

HWADDR = "02:00:00:00:00:07"

INTERFACES = """\
# eth0 is the LAN
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

allow-hotplug eth0
iface eth0 inet static
    address 203.0.113.7/24
    gateway 203.0.113.1
    dns-nameservers 203.0.113.1
    up ip route add 192.0.2.0/24 via 203.0.113.3 dev eth0

iface eth0 inet6 auto
"""
VLAN = "auto eth0.5\niface eth0.5 inet manual\n"
NETPLAN = """\
# This file is generated from information provided by the datasource. cloud-init
network:
  version: 2
  ethernets:
    uplink:
      match: {macaddress: "02:00:00:00:00:07"}
      set-name: eth0
      dhcp4: true
      addresses: [2001:db8:1::7/64]
      nameservers: {addresses: [203.0.113.1]}
    eth1: {dhcp4: true}
"""
NETWORKD = """\
[Match]
MACAddress=02:00:00:00:00:07

[Link]
RequiredForOnline=routable

[Network]
DHCP=ipv4
VLAN=eth0.5

[Route]
Destination=192.0.2.0/24
Gateway=203.0.113.3

[Route]
Destination=198.18.0.0/15
Gateway=203.0.113.3
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in {
        "etc/network/interfaces": INTERFACES,
        "etc/network/interfaces.d/vlan": VLAN,
        "etc/netplan/50-cloud-init.yaml": NETPLAN,
        "etc/systemd/network/20-lan.network": NETWORKD,
        "etc/systemd/network/20-lan.network.d/dns.conf": "[Network]\nDNS=203.0.113.1\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "etc/cloud/cloud.cfg.d").mkdir(parents=True)
    return tmp_path


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in (root / "etc").rglob("*") if path.is_file()}


def test_ifupdown(root: Path) -> None:
    (path,) = host_ifupdown.defining("eth0", str(root))
    (text,) = host_ifupdown.files("br0", "eth0", HWADDR, str(root)).values()
    assert path == f"{root}/etc/network/interfaces"
    lines = text.splitlines()
    assert lines[1] == "# eth0 is the LAN"
    where = lines.index("iface br0 inet static")
    assert lines[where - 1] == "auto br0"
    assert lines[where + 1 : where + 4] == [
        "    pre-up ip link add name $IFACE type bridge forward_delay 0 2>/dev/null || true",
        f"    pre-up ip link set dev $IFACE address {HWADDR}",
        "    pre-up ip link set dev eth0 up master $IFACE",
    ]
    assert "    up ip route add 192.0.2.0/24 via 203.0.113.3 dev br0" in lines
    assert "iface br0 inet6 auto" in lines
    assert "iface eth0 inet manual" in lines
    assert text.count("eth0") == 4
    assert host_ifupdown.defining("eth7", str(root)) == []


def test_netplan(root: Path) -> None:
    found = host_netplan.files("br0", "eth0", HWADDR, "7", str(root))
    assert list(found) == [
        f"{root}/etc/netplan/50-cloud-init.yaml",
        f"{root}/etc/cloud/cloud.cfg.d/99-pylxc-network.cfg",
        f"{root}/etc/systemd/network/10-netplan-br0.network.d/pylxc.conf",
    ]
    network = yaml.safe_load(found[f"{root}/etc/netplan/50-cloud-init.yaml"])["network"]
    assert network["bridges"]["br0"] == {
        "dhcp4": True,
        "addresses": ["2001:db8:1::7/64"],
        "nameservers": {"addresses": ["203.0.113.1"]},
        "interfaces": ["uplink"],
        "macaddress": HWADDR,
        "parameters": {"stp": False, "forward-delay": 0},
    }
    assert network["ethernets"]["uplink"] == {
        "match": {"macaddress": HWADDR},
        "set-name": "eth0",
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "link-local": [],
    }
    assert network["ethernets"]["eth1"] == {"dhcp4": True}
    (root / "etc/netplan/60-nm.yaml").write_text("network: {renderer: NetworkManager, ethernets: {eth0: {}}}")
    with pytest.raises(BadRequest, match="netplan leaves eth0 to NetworkManager"):
        host_netplan.files("br0", "eth0", HWADDR, "", str(root))


@pytest.mark.parametrize("persist", [True, False])
def test_networkd(root: Path, persist: bool) -> None:
    file = f"{root}/etc/systemd/network/20-lan.network"
    found = host_networkd.files(file, "br0", "eth0", HWADDR, "7", persist=persist)
    directory = "/etc/systemd/network" if persist else "/run/systemd/network"
    names = ["br0.network", "br0-port.network", *(["br0.netdev"] if persist else [])]
    assert list(found) == [f"{directory}/05-pylxc-{name}" for name in names]
    bridge, port = (found[f"{directory}/05-pylxc-{name}"] for name in names[:2])
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(bridge)
    assert dict(parser["Match"]) == {"Name": "br0"}
    assert dict(parser["Network"]) == {"DHCP": "ipv4", "DNS": "203.0.113.1"}
    assert dict(parser["Link"]) == {"RequiredForOnline": "routable", "MACAddress": HWADDR}
    assert parser["DHCPv4"]["IAID"] == "7"
    assert bridge.count("[Route]") == 2
    assert "[Match]\nName=eth0\n\n[Network]\nBridge=br0\nLinkLocalAddressing=no\nVLAN=eth0.5\n" in port


def test_files_come_back(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = tree(root)
    copies = f"{root}/copies"
    texts = host_netplan.files("br0", "eth0", HWADDR, "7", str(root))
    texts |= host_ifupdown.files("br0", "eth0", HWADDR, str(root))
    written = host_files.hashes(texts)
    host_files.restore(written, copies)  # nothing was written yet: a kill came before it
    assert tree(root) == before
    host_files.write(texts, copies)
    assert Path(f"{copies}{root}/etc/network/interfaces").read_text() == INTERFACES
    assert tree(root).keys() > before.keys()
    host_files.restore(written, copies)
    assert tree(root) == before
    assert not (root / "etc/systemd/network/10-netplan-br0.network.d").exists()
    assert caplog.text == ""
    host_files.write(texts, copies)
    interfaces = root / "etc/network/interfaces"
    interfaces.write_text(mine := interfaces.read_text() + "# mine\n")
    with caplog.at_level(logging.WARNING):
        host_files.restore(written, copies)
    assert interfaces.read_text() == mine
    assert f"{interfaces} was changed since pylxc wrote it" in caplog.text


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("/run/dhclient.eth0.pid", "/run/dhclient.br0.pid"),
        ("-ieth0", "-ieth0"),
        ("eth0", "br0"),
        ("eth0:1", "br0:1"),
        ("eth0.5", "eth0.5"),
        ("veth0", "veth0"),
        ("eth01", "eth01"),
    ],
)
def test_names_of_interfaces(text: str, moved: str) -> None:
    assert host_clients.names_interface("eth0").sub("br0", text) == moved


def test_a_client_moves_with_its_lease(tmp_path: Path) -> None:
    lease = tmp_path / "dhclient.eth0.leases"
    lease.write_text('lease {\n  interface "eth0";\n  fixed-address 203.0.113.7;\n}\n')
    client = host_clients.Client(program="dhclient", argv=("/sbin/dhclient", "-lf", str(lease), "-I", "eth0"), pid=7)
    moved = host_clients.moved(client, "eth0", "br0")
    assert moved.argv == ("/sbin/dhclient", "-lf", f"{tmp_path}/dhclient.br0.leases", "-I", "br0")
    assert 'interface "br0"' in (tmp_path / "dhclient.br0.leases").read_text()
