"""A bridge on the host's own network: the move of the host's addresses and its way back, and machines on it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon
from tests.support.images import image_files
from tests.support.lan import GATEWAY, OUTSIDE, STATIC, Lan
from tests.support.wait import until


@pytest.fixture
def daemon(make_daemon: Callable[[], Daemon], need: Callable[..., None]) -> Daemon:
    need("dnsmasq", "nft", "busybox")
    return make_daemon()


@pytest.fixture
def lan(daemon: Daemon) -> Iterator[Lan]:
    lan = Lan(daemon)
    try:
        daemon.start()
        yield lan
        daemon.delete_all()
        for name in _networks(daemon):
            daemon.request("DELETE", f"/1.0/networks/{name}")
    finally:
        lan.close()


def _networks(daemon: Daemon) -> list[str]:
    return [one["name"] for one in daemon.request("GET", "/1.0/networks?recursion=1") if one["managed"]]


def _watchdogs(lan: Lan) -> list[int]:
    return [pid for pid in lan.host.pids() if b"lan_watch" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_everything_moves_and_comes_back(daemon: Daemon, lan: Lan) -> None:
    lan.configure_statically()
    before = lan.facts()
    hwaddr = lan.run_on_host("ip", "-o", "link", "show", "eth0").split("link/ether ")[1].split()[0]
    daemon.command("network", "create", "br0", "--lan", "eth0")
    moved = lan.facts().replace("br0", "eth0")
    shown = json.loads(daemon.command("network", "list", "-f", "json").stdout)
    config = next(one for one in shown if one["name"] == "br0")["config"]
    assert config == {
        "bridge.external_interfaces": "eth0",
        "ipv4.address": "none",
        "ipv6.address": "none",
        "lan.interface": "eth0",
    }
    assert lan.run_on_host("cat", "/proc/sys/net/ipv6/conf/br0/accept_ra") == "0\n"
    assert lan.addresses("eth0") == []
    assert lan.addresses("br0") == ["198.51.100.9", STATIC, "203.0.113.8"]
    assert f"link/ether {hwaddr}" in lan.run_on_host("ip", "link", "show", "br0")
    for fact in ('"label": "eth0:extra"', '"metric": 70', '"table": "77"', '"expires": some', '"metric": 512'):
        assert before.count(fact) == moved.count(fact) >= 1, fact
    lan.run_outside("busybox", "ping", "-c1", "-W2", STATIC)
    lan.run_on_host("busybox", "ping", "-c1", "-W2", "2001:db8:1::1")
    assert _watchdogs(lan) == []
    daemon.stop()
    assert STATIC in lan.addresses("br0")
    daemon.start()
    daemon.command("network", "delete", "br0")
    assert lan.facts() == before
    assert _networks(daemon) == []


def test_without_an_answer_all_is_as_before(daemon: Daemon, lan: Lan) -> None:
    lan.configure_statically()
    before = lan.facts()
    lan.cut()
    done = daemon.command("network", "create", "br0", "--lan", "eth0", "lan.timeout=1", check=False)
    assert done.returncode == 1
    assert f"Gateway 2001:db8:1::1, {GATEWAY} did not answer over br0" in done.stderr
    assert "eth0 is as it was before" in done.stderr
    assert lan.facts() == before
    assert _networks(daemon) == []
    assert _watchdogs(lan) == []
    lan.run_outside("busybox", "ping", "-c1", "-W2", STATIC)


def test_the_user_confirms(daemon: Daemon, lan: Lan) -> None:
    lan.configure_statically()
    lan.cut()
    assert "does not wait" in daemon.command("network", "confirm", "br0", check=False).stderr
    asking = _create(daemon)
    until(lambda: lan.addresses("br0"), "the addresses have moved")
    until(lambda: daemon.command("network", "confirm", "br0", check=False).returncode == 0, "it can be confirmed")
    asking.join()
    assert _networks(daemon) == ["br0"]
    assert STATIC in lan.addresses("br0")
    daemon.command("network", "delete", "br0")
    daemon.command("network", "create", "br0", "--lan", "eth0", "--yes")
    assert STATIC in lan.addresses("br0")
    daemon.command("network", "delete", "br0")
    lan.mend()


@pytest.mark.parametrize("watchdog", ["lives", "killed"])
def test_the_daemon_is_killed_while_it_waits(daemon: Daemon, lan: Lan, watchdog: str) -> None:
    lan.configure_statically()
    before = lan.facts()
    lan.cut()
    asking = _create(daemon)
    until(lambda: lan.addresses("br0") and not lan.addresses("eth0"), "the addresses have moved")
    (watcher,) = _watchdogs(lan)
    if watchdog == "killed":
        os.kill(watcher, signal.SIGKILL)
    assert daemon.signal(signal.SIGKILL) == -signal.SIGKILL
    asking.join()
    if watchdog == "lives":
        until(lambda: _watchdogs(lan) == [], "the watchdog ends")
        assert lan.facts() == before
    daemon.start()
    assert lan.facts() == before
    assert _networks(daemon) == []


def test_the_daemon_is_killed_at_any_moment(daemon: Daemon, lan: Lan) -> None:
    lan.configure_statically()
    before = lan.facts()
    for moment in (0.02, 0.05, 0.1, 0.2):
        asking = _create(daemon)
        timer = threading.Timer(moment, lambda: daemon.signal(signal.SIGKILL))
        timer.start()
        asking.join()
        timer.join()
        until(lambda: _watchdogs(lan) == [], "the watchdog ends")
        assert f'"local": "{STATIC}"' in lan.facts()
        daemon.start()
        if _networks(daemon) == ["br0"]:
            assert STATIC in lan.addresses("br0")
            daemon.command("network", "delete", "br0")
        assert lan.facts() == before


def _create(daemon: Daemon) -> threading.Thread:
    """Ask for br0 in a thread of its own; not by the command, which starts a daemon where one has been killed."""

    def ask() -> None:
        with contextlib.suppress(OSError, ApiError, http.client.HTTPException):
            daemon.request("POST", "/1.0/networks", {"name": "br0", "config": {"lan.interface": "eth0"}})

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_container_is_a_machine_of_the_lan(
    daemon: Daemon, lan: Lan, busybox_files: list[str], need: Callable[..., None]
) -> None:
    need("lxc")
    lan.configure_by_dhcp()
    before = lan.facts()
    (address,) = lan.addresses("eth0")
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    image = daemon.import_image("busybox", busybox_files)
    refused = daemon.command("launch", image, "c01", "--lan", check=False)
    assert "There is no bridge on the host's own network (pylxc network create br0 --lan" in refused.stderr
    daemon.lxc("network", "create", "br0", "lan.interface=eth0")
    # The host's DHCP client has gone along: it renews the same lease on the bridge.
    until(lambda: lan.addresses("br0") == [address], "the lease is renewed")
    until(lambda: [line.count("-i br0") for line in lan.dhcp_clients()] == [1], "its client runs on the bridge")
    assert any('"gateway": "fe80:' in route and '"protocol": "ra"' in route for route in lan.routes("br0"))
    daemon.command("launch", image, "c01", "--lan")
    _serve(daemon, "c01")
    _reach(lan, "c01")
    daemon.command("network", "create", "inside", "ipv4.address=10.140.7.1/24", "ipv4.nat=true", "ipv6.address=none")
    daemon.command("launch", image, "c02", "-n", "inside", "-d", "eth0,ipv4.address=10.140.7.9")
    daemon.command("network", "forward", "create", "inside", address)
    daemon.command("network", "forward", "port", "add", "inside", address, "tcp", "8080", "10.140.7.9", "80")
    proxy = ("config", "device", "add", "c02")
    daemon.command(*proxy, "plain", "proxy", f"listen=tcp:{address}:8081", "connect=tcp:127.0.0.1:80")
    daemon.command(*proxy, "nat", "proxy", f"listen=tcp:{address}:8082", "connect=tcp:10.140.7.9:80", "nat=true")
    _serve(daemon, "c02")
    _reach_out(daemon, "c02")
    for port in (8080, 8081, 8082):
        _fetch(lan, f"{address}:{port}", "c02")
    daemon.signal(signal.SIGTERM)
    _reach(lan, "c01")
    for port in (8080, 8081, 8082):
        _fetch(lan, f"{address}:{port}", "c02")
    daemon.start()
    daemon.command("restart", "--force", "c01", "c02")
    for name in ("c01", "c02"):
        _serve(daemon, name)
    _reach(lan, "c01")
    _reach_out(daemon, "c02")
    for port in (8080, 8081, 8082):
        _fetch(lan, f"{address}:{port}", "c02")
    with pytest.raises(ApiError, match="currently in use"):
        daemon.request("DELETE", "/1.0/networks/br0")
    daemon.command("delete", "--force", "c01")
    daemon.lxc("network", "attach", "br0", "c02", "eth1")
    daemon.command("restart", "--force", "c02")
    assert "eth1" in daemon.command("exec", "c02", "--", "ip", "link").stdout
    daemon.command("delete", "--force", "c02")
    daemon.command("network", "delete", "inside")
    daemon.command("network", "delete", "br0")
    until(lambda: lan.addresses("eth0") == [address], "the lease is renewed")
    with contextlib.suppress(AssertionError):
        until(lambda: lan.facts() == before, "everything is as before")
    assert lan.facts().splitlines() == before.splitlines()
    until(lambda: [line.count("-i eth0") for line in lan.dhcp_clients()] == [1], "its client runs on eth0")


def _serve(daemon: Daemon, name: str) -> None:
    daemon.command("exec", name, "--", "sh", "-c", f"echo page of {name} > /index.html; httpd -h /")


def _reach(lan: Lan, name: str) -> None:
    """Check that an instance has leased an address of the LAN, and that the outside machine gets a page from it."""
    _fetch(lan, until(lambda: lan.leased(name), f"{name} leases an address of the LAN"), name)


def _fetch(lan: Lan, server: str, name: str) -> None:
    """Check that the outside machine gets the page of an instance from a server."""
    fetch = ("timeout", "5", "busybox", "wget", "-qO-", f"http://{server}/")
    assert until(lambda: lan.run_outside(*fetch, check=False), "the page") == f"page of {name}\n"


def _reach_out(daemon: Daemon, name: str) -> None:
    """Check that an instance behind NAT reaches the outside machine."""
    ping = ("exec", name, "--", "ping", "-c1", "-W1", OUTSIDE)
    until(lambda: daemon.command(*ping, check=False).returncode == 0, f"{name} reaches the outside")


@pytest.mark.timeout(600)
def test_nginx_of_debian(daemon: Daemon, lan: Lan) -> None:
    lan.configure_statically()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    image = daemon.import_image("nginx", image_files("nginx"))
    daemon.command("network", "create", "br0", "--lan", "eth0")
    daemon.command("launch", image, "web", "--lan")
    address = until(lambda: lan.leased("web"), "it leases an address of the LAN")
    fetch = ("busybox", "wget", "-qO-", f"http://{address}/")
    assert "Welcome to nginx" in until(lambda: lan.run_outside(*fetch, check=False), "the page", 60)


def test_a_reboot_of_the_host(daemon: Daemon, lan: Lan, busybox_files: list[str]) -> None:
    lan.configure_statically()
    addresses = lan.addresses("eth0")
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    image = daemon.import_image("busybox", busybox_files)
    daemon.command("network", "create", "br0", "--lan", "eth0")
    daemon.command("launch", image, "c01", "--lan", "-c", "boot.autostart=true")
    moved = lan.routes("br0")
    until(lambda: lan.leased("c01"), "it leases an address")
    # What a reboot leaves of it: the host's own configuration on eth0, no bridge, nothing that runs.
    daemon.command("admin", "shutdown")
    assert daemon.process
    daemon.process.wait(30)
    lan.run_on_host("ip", "link", "delete", "br0")
    lan.run_on_host("ip", "address", "flush", "dev", "eth0", "scope", "global")
    lan.configure_statically()
    daemon.start()
    until(lambda: daemon.instances() == {"c01": "Running"}, "autostart")
    shown = json.loads(lan.run_on_host("ip", "-j", "link", "show", "master", "br0"))
    assert len(shown) == 2
    daemon.command("delete", "--force", "c01")
    assert STATIC in lan.addresses("br0")
    assert lan.routes("br0") == moved
    daemon.command("network", "delete", "br0")
    assert lan.addresses("eth0") == addresses


def test_bridges_that_others_made(daemon: Daemon, lan: Lan, busybox_files: list[str]) -> None:
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    image = daemon.import_image("busybox", busybox_files)
    for words in ("link add br0 type bridge forward_delay 0", "link set eth0 up master br0", "link set br0 up"):
        lan.run_on_host("ip", *words.split())
    for name, options in {
        "c01": ("-n", "br0"),
        "c02": ("-d", "eth0,type=nic", "-d", "eth0,nictype=bridged", "-d", "eth0,parent=br0", "-d", "eth0,name=eth0"),
        "c03": ("--lan",),
    }.items():
        daemon.command("launch", image, name, *options)
        until(lambda name=name: lan.leased(name), f"{name} leases an address")  # type: ignore[misc]
    refused = daemon.command("network", "create", "br1", "--lan", "eth0", check=False)
    assert "Interface 'eth0' is in bridge 'br0' already (use it as it is: -n br0)" in refused.stderr


def test_through_a_firewall_that_drops(daemon: Daemon, lan: Lan, busybox_files: list[str]) -> None:
    lan.configure_statically()
    rules = "add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }"
    lan.run_on_host("nft", rules)
    before = lan.run_on_host("nft", "list", "ruleset")
    lan.run_on_host("sh", "-c", "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    image = daemon.import_image("busybox", busybox_files)
    daemon.command("network", "create", "br0", "--lan", "eth0")
    daemon.command("launch", image, "c01", "--lan")
    _serve(daemon, "c01")
    _reach(lan, "c01")
    daemon.command("delete", "--force", "c01")
    daemon.command("network", "delete", "br0")
    assert lan.run_on_host("nft", "list", "ruleset") == before


def test_without_a_gateway_neighbours_are_asked(daemon: Daemon, lan: Lan) -> None:
    lan.hear_no_advertisements()
    for words in ("link set eth0 up", f"address add {STATIC}/24 dev eth0"):
        lan.run_on_host("ip", *words.split())
    create = ("network", "create", "br0", "--lan", "eth0", "lan.timeout=1")
    refused = daemon.command(*create, check=False)
    assert (
        "No gateway and no neighbour of eth0 could be asked over br0, and nobody confirmed it in 1 s" in refused.stderr
    )
    lan.run_on_host("busybox", "ping", "-c1", "-W2", OUTSIDE)
    daemon.command(*create)
    daemon.command("network", "delete", "br0")
    lan.cut()
    lan.run_on_host("busybox", "ping", "-c1", "-W2", OUTSIDE)
    refused = daemon.command(*create, check=False)
    assert f"None of its neighbours {OUTSIDE}" in refused.stderr
    assert "answered over br0" in refused.stderr
    lan.mend()


def test_an_interface_without_addresses(daemon: Daemon, lan: Lan) -> None:
    before = lan.facts()
    daemon.command("network", "create", "br0", "--lan", "eth0")
    assert "master br0" in lan.run_on_host("ip", "link", "show", "eth0")
    daemon.command("network", "delete", "br0")
    assert lan.facts() == before.replace('"noop"', '"noqueue"')  # what it is once it has been up


def test_what_is_refused(daemon: Daemon, lan: Lan) -> None:
    lan.configure_statically()
    for words in (
        "link add taken type veth peer name far1",
        "link set taken up",
        "link add mv0 link taken up type macvlan",
        "tuntap add tun0 mode tun",
        "link add leased0 type veth peer name far2",
        "link set leased0 up",
        "address add 10.4.4.4/24 dev leased0 valid_lft 500 preferred_lft 500",
    ):
        lan.run_on_host("ip", *words.split())
    assert "pylxc network create br0 --lan eth0" in daemon.command("doctor", check=False).stdout
    before = lan.facts()
    for arguments, complaint in {
        "br0 --lan eth7": "Interface 'eth7' does not exist",
        "br0 --lan lo": "Interface 'lo' is the loopback",
        "br0 --lan tun0": "Interface 'tun0' (tun) cannot be put into a bridge",
        "br0 --lan mv0": "Interface 'mv0' (macvlan) cannot be put into a bridge",
        "br0 --lan taken": "in use by something that takes its frames, as macvlan interfaces do",
        "br0 --lan leased0": "s by a program that pylxc does not know",
        "taken --lan eth0": "An interface named 'taken' exists already",
        "br0 --lan eth0 --persist": "Nothing on this host configures eth0 at boot",
        "br0 --lan eth0 ipv4.address=10.1.2.3/24": "ipv4.address of a network with lan.interface is none",
        "br0 --lan eth0 ipv4.nat=true": "ipv4.nat has no effect on a network with lan.interface",
        "br0 --lan eth0 bridge.external_interfaces=tun0": "of a network with lan.interface=eth0 is eth0",
        "br0 --yes": "--persist and --yes go with --lan",
    }.items():
        done = daemon.command("network", "create", *arguments.split(), check=False)
        assert (done.returncode, complaint in done.stderr) == (1, True), done.stderr
        assert done.stderr.count("\n") == 1
    assert lan.facts() == before
    assert _networks(daemon) == []
    assert os.listdir(f"{daemon.dir}/networks") == []
    daemon.command("network", "create", "br0", "--lan", "eth0")
    for key, complaint in {
        "lan.interface=tun0": "lan.interface cannot be changed",
        "lan.persist=true": "lan.persist cannot be changed",
    }.items():
        assert complaint in daemon.command("network", "set", "br0", key, check=False).stderr
    daemon.command("network", "set", "br0", "lan.timeout=5")
    daemon.command("network", "delete", "br0")
