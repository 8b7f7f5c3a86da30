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
from tests.support.lan import GATEWAY, STATIC, Lan
from tests.support.wait import until


@pytest.fixture
def daemon(make_daemon: Callable[[], Daemon], need: Callable[..., None]) -> Daemon:
    need("dnsmasq", "nft", "busybox")
    return make_daemon()


@pytest.fixture
def lan(daemon: Daemon) -> Iterator[Lan]:
    lan = Lan(daemon)
    daemon.start()
    yield lan
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


def test_a_container_is_a_machine_of_the_lan(daemon: Daemon, lan: Lan, busybox_files: list[str]) -> None:
    lan.configure_by_dhcp()
    before = lan.facts()
    (address,) = lan.addresses("eth0")
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    image = daemon.import_image("busybox", busybox_files)
    refused = daemon.command("launch", image, "c01", "--lan", check=False)
    assert "There is no bridge on the host's own network (pylxc network create br0 --lan" in refused.stderr
    daemon.command("network", "create", "br0", "--lan", "eth0")
    # The host's DHCP client has gone along: it renews the same lease on the bridge.
    until(lambda: lan.addresses("br0") == [address], "the lease is renewed")
    assert [line.count("-i br0") for line in lan.dhcp_clients()] == [1]
    daemon.command("launch", image, "c01", "--lan")
    _serves(daemon, lan)
    daemon.signal(signal.SIGTERM)
    _serves(daemon, lan, ask=False)
    daemon.start()
    daemon.command("restart", "--force", "c01")
    _serves(daemon, lan)
    with pytest.raises(ApiError, match="currently in use"):
        daemon.request("DELETE", "/1.0/networks/br0")
    daemon.command("delete", "--force", "c01")
    daemon.command("network", "delete", "br0")
    until(lambda: lan.addresses("eth0") == [address], "the lease is renewed")
    until(lambda: lan.facts() == before, "everything is as before")
    assert [line.count("-i eth0") for line in lan.dhcp_clients()] == [1]


def _serves(daemon: Daemon, lan: Lan, *, ask: bool = True) -> None:
    """Check that container c01 has an address of the LAN's server and that the outside machine gets a page of it."""
    if ask:
        daemon.command("exec", "c01", "--", "sh", "-c", "echo page of c01 > /index.html; httpd -h /")
    leases = Path(lan.directory, "leases").read_text().splitlines()
    address = next((line.split()[2] for line in leases if line.split()[3] == "c01"), "")
    if not address:
        until(lambda: "c01" in Path(lan.directory, "leases").read_text(), "c01 leases an address of the LAN")
        return _serves(daemon, lan, ask=False)
    page = until(lambda: lan.run_outside("busybox", "wget", "-qO-", f"http://{address}/", check=False), "the page")
    assert page == "page of c01\n"
    return None
