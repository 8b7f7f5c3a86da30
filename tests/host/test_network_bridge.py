"""Managed bridges in a network namespace of their own, with real DHCP clients, names, NAT, and helpers that die."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from pylxc.db import models
from pylxc.errors import BadRequest, Conflict, NotFound, NotSupported, PylxcError, Unavailable
from pylxc.kernel import procfs
from pylxc.services.instances.devices import Prepared
from tests.support.daemon import ROOT
from tests.support.namespace import NetworkNamespace
from tests.support.networks import NetworkHost, links, output
from tests.support.wait import until


def test_lease_names_and_release(host: NetworkHost) -> None:
    host.create(ipv6_address="none")
    one, two = host.guest("c01"), host.guest("c02")
    leased = one.dhcp()
    assert leased["router"] == leased["dns"] == host.gateway
    assert leased["domain"] == "lxd"
    other = two.dhcp()
    assert leased["ip"] in two.resolve("c01.lxd")
    assert other["ip"] in one.resolve("c02.lxd")
    assert "c01.lxd" in two.run("busybox", "nslookup", leased["ip"], host.gateway)
    one.run("busybox", "ping", "-c1", "-W2", other["ip"])
    leases = {lease["hostname"]: lease for lease in host.networks.leases("br0")}
    assert (leases["c01"]["address"], leases["c01"]["hwaddr"]) == (leased["ip"], one.hwaddr)
    assert leases["br0.gw"]["type"] == "gateway"
    host.devices.stop("default", "c01", one.devices, one.config)
    until(lambda: leased["ip"] not in two.resolve("c01.lxd"), "the lease is given back")
    until(lambda: one.config["volatile.eth0.host_name"] not in links(), "the veth is deleted")
    assert [lease["hostname"] for lease in host.networks.leases("br0") if lease["type"] == "dynamic"] == ["c02"]


def test_nobody_takes_anothers_name(host: NetworkHost) -> None:
    host.create()
    one, thief = host.guest("c01"), host.guest("c02")
    mine = one.dhcp()["ip"]
    theirs = thief.dhcp(hostname="c01")["ip"]
    answer = thief.resolve("c01.lxd")
    assert mine in answer
    assert theirs not in answer
    assert theirs in one.resolve("c02.lxd")


def test_static_address_stays_reserved(host: NetworkHost) -> None:
    host.create(ipv4_address="10.199.7.1/24")
    guest = host.guest("c01", {"ipv4.address": "10.199.7.77"})
    assert guest.dhcp()["ip"] == "10.199.7.77"
    host.devices.stop("default", "c01", guest.devices, guest.config)
    static = [lease for lease in host.networks.leases("br0") if lease["type"] == "static"]
    assert [lease["address"] for lease in static] == ["10.199.7.77"]
    host.devices.remove("default", "c01", guest.devices, guest.config)
    assert [lease["type"] for lease in host.networks.leases("br0") if lease["type"] == "static"] == []


def test_out_through_nat(host: NetworkHost, inside: NetworkNamespace) -> None:
    outside = inside.add_outside()
    host.create()
    guest = host.guest("c01")
    guest.dhcp()
    guest.run("busybox", "ping", "-c1", "-W2", outside)
    host.networks.update("br0", {"ipv4.nat": "false"}, None, patch=True)
    assert "100% packet loss" in guest.run("busybox", "ping", "-c1", "-W1", outside, check=False)
    host.networks.update("br0", {"ipv4.nat": "true"}, None, patch=True)
    guest.run("busybox", "ping", "-c1", "-W2", outside)


def test_interface_inside(host: NetworkHost) -> None:
    host.create(bridge_mtu="1400", ipv6_address="none")
    guest = host.guest("c01", {"name": "lan0", "hwaddr": "00:16:3E:12:34:56"})
    shown = guest.run("ip", "link", "show", "lan0")
    assert "mtu 1400" in shown
    assert "00:16:3e:12:34:56" in shown
    assert "UP" in shown
    host_name = guest.config["volatile.eth0.host_name"]
    assert "master br0" in output("ip", "link", "show", host_name)


def test_other_rules_are_left_alone(host: NetworkHost) -> None:
    subprocess.run(["nft", "add table inet other; add chain inet other mine"], check=True)
    host.create()
    assert ".network.br0 {" in output("nft", "list", "ruleset")
    host.networks.delete("br0")
    assert output("nft", "list", "ruleset").split() == ["table", "inet", "other", "{", "chain", "mine", "{", "}", "}"]
    assert links() == ["lo"]


def test_dnsmasq_is_unprivileged_and_outlives_the_service(host: NetworkHost) -> None:
    host.create()
    before = host.dnsmasq()
    status = procfs.status(before)
    assert status["Uid"].split()[0] != "0"
    guest = host.guest("c01")
    leased = guest.dhcp()["ip"]
    with host.db.transaction() as session:
        project = session.query(models.Project).filter_by(name="default").one()
        row = models.Instance(project_id=project.id, name="c01", architecture="x86_64", state="created")
        row.devices, row.config = guest.devices, guest.config
        session.add(row)
    host.networks.close()
    host.open()
    assert host.dnsmasq() == before
    assert leased in guest.resolve("c01.lxd")
    os.kill(before, signal.SIGKILL)
    host.dnsmasq(but=before)
    until(lambda: leased in guest.resolve("c01.lxd"), "it knows the lease")
    with pytest.raises(BadRequest, match="in use"):
        host.networks.delete("br0")
    with host.db.transaction() as session:
        session.query(models.Instance).delete()


def test_damaged_lease_file_does_not_stop_it(host: NetworkHost) -> None:
    host.create()
    pid = host.dnsmasq()
    Path(host.paths.network("br0"), "dnsmasq.leases").write_bytes(b"\0\xff damaged\nx\n")
    os.kill(pid, signal.SIGKILL)
    host.dnsmasq(but=pid)
    assert host.guest("c01").dhcp()["ip"]


def test_what_a_crash_leaves_is_cleared(host: NetworkHost) -> None:
    host.create()
    host.create("br1")
    (device,) = (name for name in links() if name == "br1")
    host.networks.close()
    with host.db.transaction() as session:
        for row in session.query(models.Network):
            row.state = "creating" if row.name == "br0" else "deleting"
    subprocess.run(["ip", "link", "delete", device], check=True)
    host.open()
    assert links() == ["lo"]
    assert host.networks.names() == ["lo"]
    assert host.dnsmasqs() == []
    assert os.listdir(host.paths.networks) == []


def test_guests_that_an_old_database_does_not_know_stay_on_the_network(host: NetworkHost) -> None:
    host.create()
    guest = host.guest("c01")
    guest.dhcp()
    host.networks.close()
    host.open()
    guest.run("busybox", "ping", "-c1", "-W2", host.gateway)


@pytest.mark.parametrize(
    ("name", "config", "complaint"),
    [
        ("much-too-long-a-name", {}, "2-15 characters"),
        ("br 0", {}, "Invalid network interface name"),
        ("br0", {"ipv4.adress": "auto"}, "did you mean ipv4.address"),
        ("br0", {"ipv4.address": "10.1.2.3"}, "CIDR"),
        ("br0", {"ipv4.address": "127.0.0.1/24"}, "overlaps 127.0.0"),
        ("br0", {"bridge.mode": "fan"}, "not supported"),
        ("br0", {"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.3.1-10.1.3.5"}, "outside of 10.1.2.0/24"),
        ("lo", {}, "exists already"),
    ],
)
def test_bad_networks(host: NetworkHost, name: str, config: dict[str, str], complaint: str) -> None:
    with pytest.raises(PylxcError, match=complaint) as raised:
        host.networks.create(name, "bridge", config)
    assert isinstance(raised.value, BadRequest | Conflict | NotSupported)
    assert host.networks.names() == ["lo"]
    assert os.listdir(host.paths.networks) == []


def test_bad_raw_dnsmasq_leaves_the_network_as_it_was(host: NetworkHost) -> None:
    host.create()
    before = host.networks.get("br0")
    with pytest.raises(Unavailable, match=r"Cannot start dnsmasq [0-9.]+ for network 'br0': bad option"):
        host.networks.update("br0", {"raw.dnsmasq": "no-such-option"}, None, patch=True)
    assert host.networks.get("br0") == before
    assert host.dnsmasq()
    with pytest.raises(Unavailable, match="Cannot start dnsmasq"):
        host.create("br1", raw_dnsmasq="no-such-option")
    assert "br1" not in links()
    assert host.networks.names() == ["br0", "lo"]


def test_a_port_that_is_taken(host: NetworkHost) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 67))
        with pytest.raises(Unavailable, match=r"Cannot start dnsmasq .*: failed to bind DHCP server socket: .* in use"):
            host.create()
    assert links() == ["lo"]
    assert host.networks.names() == ["lo"]
    assert "pylxc" not in output("nft", "list", "ruleset")
    assert os.listdir(host.paths.networks) == []
    host.create()


def test_without_ipv6(host: NetworkHost) -> None:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    host.create()
    assert host.networks.get("br0")["config"]["ipv6.address"] == "none"
    assert host.guest("c01").dhcp()["ip"]
    host.create("br1", ipv6_address="fd42:7::1/64")
    assert "inet6" not in output("ip", "address", "show", "br1")


def test_update_and_rename(host: NetworkHost) -> None:
    host.create()
    host.networks.update("br0", {"ipv4.address": "10.199.8.1/24", "ipv6.address": "none"}, "text")
    shown = output("ip", "address", "show", "br0")
    assert "10.199.8.1/24" in shown
    assert shown.count("inet ") == 1
    assert "scope global" in shown
    assert "inet6 fd" not in shown
    host.networks.rename("br0", "lan")
    assert links() == ["lo", "lan"]
    assert host.networks.get("lan")["description"] == "text"
    with pytest.raises(NotFound):
        host.networks.get("br0")
    with pytest.raises(BadRequest, match=r"overlaps 10\.199\.8\.0/24"):
        host.create("br1", ipv4_address="10.199.8.129/25")


def test_devices_are_validated(host: NetworkHost) -> None:
    host.create(ipv4_address="10.199.7.1/24")
    validate = partial(host.devices.validate, project="default")
    validate({"eth0": {"type": "nic", "network": "br0", "ipv4.address": "10.199.7.5"}, "x": {"type": "none"}})
    bad: list[tuple[dict[str, str], str]] = [
        ({"type": "nic", "network": "br7"}, "Network 'br7' not found"),
        ({"type": "nic", "network": "br0", "ipv4.address": "10.1.1.1"}, "not within the ipv4 subnet"),
        ({"type": "nic", "network": "br0", "ipv4.address": "10.199.7.1"}, "is that of network 'br0' itself"),
        ({"type": "nic", "network": "br0", "parent": "br0"}, "in conjunction"),
        ({"type": "nic"}, "needs a network"),
        ({"type": "nic", "network": "br0", "hwadr": "x"}, "did you mean hwaddr"),
        ({"type": "nic", "network": "br0", "hwaddr": "x"}, "Invalid MAC address"),
        ({"type": "disk", "path": "/"}, '"pool"'),
        ({"type": "disk", "path": "/", "pool": "nope"}, "Storage pool not found"),
        ({"type": "disk", "path": "/mnt"}, '"source"'),
        ({"type": "disk", "path": "/mnt", "source": "relative"}, "absolute path"),
        ({"type": "disk", "path": "../up", "source": "/srv"}, "one inside is needed, without"),
        ({"type": "teleport"}, "Unknown device type"),
        ({}, "Missing device type"),
    ]
    for device, complaint in bad:
        with pytest.raises(PylxcError, match=complaint):
            validate({"d": device})
    for kind in ({"type": "usb", "vendorid": "1d6b"}, {"type": "nic", "nictype": "sriov", "parent": "lo"}):
        with pytest.raises(NotSupported, match="not supported"):
            validate({"d": kind})


def test_disks(host: NetworkHost, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    devices = {
        "root": {"type": "disk", "path": "/", "pool": "default"},
        "data": {"type": "disk", "path": "srv/data", "source": str(tmp_path / "data"), "readonly": "true"},
        "gone": {"type": "disk", "path": "/gone", "source": "/nonexistent", "required": "false"},
    }
    run: Prepared = host.devices.start("default", "c01", devices, {})
    (mount,) = run.mounts
    assert (mount.source, mount.target, mount.create) == (str(tmp_path / "data"), "/srv/data", "dir")
    assert mount.options == ("bind", "ro")
    devices["gone"]["required"] = "true"
    with pytest.raises(BadRequest, match="'/nonexistent' of disk device 'gone' does not exist"):
        host.devices.start("default", "c01", devices, {})


_LOOP = """
import sys
from pathlib import Path
from tests.support.networks import NetworkHost
host = NetworkHost(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    host.create("br0")
    host.networks.update("br0", {"ipv4.address": "10.199.9.1/24", "bridge.external_interfaces": "ext0"}, None)
    host.networks.update("br0", {"ipv4.address": "10.199.9.1/24", "ipv4.routes": "10.77.0.0/24"}, None)
    host.networks.rename("br0", "br1")
    host.networks.delete("br1")
"""


def test_killed_at_random_moments(host: NetworkHost, inside: NetworkNamespace, tmp_path: Path) -> None:
    host.networks.close()
    output("ip", "link", "add", "ext0", "type", "veth", "peer", "name", "ext1")
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    moments = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'manager'}:{ROOT}"}
    for _ in range(8):
        command = inside.command(sys.executable, "-c", _LOOP, str(tmp_path))
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0, 0.5))  # the moment of the crash
            process.kill()
            process.wait()
        host.open()
        managed = [network["name"] for network in host.networks.list() if network["managed"]]
        assert sorted(links()) == sorted(["lo", "ext0", "ext1", *managed])
        assert until(lambda: len(host.dnsmasqs()) == len(managed), "what the dead one was starting ends")  # noqa: B023
        assert sorted(os.listdir(host.paths.networks)) == managed
        rules = output("nft", "list", "ruleset")
        assert rules.count("table inet pylxc") == len(managed)
        for name in managed:
            assert host.networks.get(name)["status"] == "Created"
            assert f".network.{name} {{" in rules
            config = host.networks.get(name)["config"]
            assert ("10.77.0.0/24" in output("ip", "route")) == ("ipv4.routes" in config)
            assert ("master" in output("ip", "link", "show", "ext0")) == ("bridge.external_interfaces" in config)
            host.networks.delete(name)
        host.networks.close()
    host.open()
