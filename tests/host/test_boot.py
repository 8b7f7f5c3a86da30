"""Instances that start with the daemon, stop with the host, and are started again when they crash."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, Daemon
from tests.support.wait import until


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> Daemon:
    daemon = make_daemon()
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    daemon.import_image("busybox", busybox_files)
    return daemon


def make(daemon: Daemon, name: str, *, start: bool = False, **body: Any) -> None:
    source = {"type": "image", "alias": "busybox"}
    daemon.request("POST", "/1.0/instances", {"name": name, "source": source, "start": start, **body})


def started_at(daemon: Daemon, name: str) -> dt.datetime:
    return dt.datetime.fromisoformat(daemon.request("GET", f"/1.0/instances/{name}")["last_used_at"])


def power(daemon: Daemon, name: str) -> str:
    return str(daemon.request("GET", f"/1.0/instances/{name}")["config"]["volatile.last_state.power"])


def warnings(daemon: Daemon) -> dict[str, tuple[str, str]]:
    """Return message and status of each warning of a failed start, by the instance's URL."""
    found = daemon.request("GET", "/1.0/warnings?recursion=1")
    failed = [w for w in found if w["type"] == "Failed to autostart instance"]
    return {w["entity_url"]: (w["last_message"], w["status"]) for w in failed}


def test_order_delays_and_what_cannot_be_started(daemon: Daemon, tmp_path: Path) -> None:
    host_path = tmp_path / "away"
    disk = {"data": {"type": "disk", "source": str(host_path), "path": "/data"}}
    on = {"boot.autostart": "true"}
    make(daemon, "second", config=on | {"boot.autostart.priority": "5"})
    make(daemon, "first", config=on | {"boot.autostart.priority": "9", "boot.autostart.delay": "2"})
    make(daemon, "broken", config=on | {"boot.autostart.priority": "5"}, devices=disk)
    make(daemon, "last", config=on)
    make(daemon, "off", start=True, config={"boot.autostart": "false", "boot.host_shutdown_timeout": "0"})
    assert daemon.signal(signal.SIGPWR, timeout=60) == 0
    daemon.start()
    expected = dict.fromkeys(("first", "second", "last"), "Running") | {"broken": "Stopped", "off": "Stopped"}
    until(lambda: daemon.instances() == expected, "autostart")
    assert started_at(daemon, "second") - started_at(daemon, "first") >= dt.timedelta(seconds=2)
    assert started_at(daemon, "last") > started_at(daemon, "second")
    (message, status), *others = warnings(daemon).values()
    assert str(host_path) in message
    assert (status, others) == ("new", [])
    host_path.mkdir()
    assert daemon.stop() == 0
    daemon.start()
    until(lambda: daemon.instances()["broken"] == "Running", "the next start")
    until(lambda: [status for _, status in warnings(daemon).values()] == ["resolved"], "nothing is left to be told")


def test_power_lost_while_the_host_goes_down(daemon: Daemon) -> None:
    rootfs = f"{daemon.dir}/storage-pools/default/containers/{{}}/rootfs"
    for name, hook, config in (
        ("polite", "/bin/touch /went-down", {"boot.stop.priority": "9"}),
        ("stuck", "/bin/sleep 1000", {"boot.host_shutdown_timeout": "300"}),
        ("halted", "", {}),
    ):
        make(daemon, name, config=config)
        with open(f"{rootfs.format(name)}/etc/inittab", "a") as inittab:
            inittab.write(f"::shutdown:{hook}\n" if hook else "")
        daemon.request("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
    daemon.command("stop", "--force", "halted")
    assert daemon.process
    daemon.process.send_signal(signal.SIGPWR)
    until(lambda: not os.path.exists(f"{daemon.dir}/run/instances/polite"), "the first one stops")
    assert os.path.exists(f"{rootfs.format('polite')}/went-down")
    daemon.signal(signal.SIGKILL)
    daemon.start()
    expected = {"polite": "Running", "stuck": "Running", "halted": "Stopped"}
    until(lambda: daemon.instances() == expected, "all is as before")


def test_a_guest_that_never_stops_is_killed_in_time(daemon: Daemon) -> None:
    make(daemon, "stuck", config={"boot.host_shutdown_timeout": "1"})
    with open(f"{daemon.dir}/storage-pools/default/containers/stuck/rootfs/etc/inittab", "a") as inittab:
        inittab.write("::shutdown:/bin/sleep 1000\n")
    daemon.request("PUT", "/1.0/instances/stuck/state", {"action": "start"})
    assert daemon.signal(signal.SIGPWR, timeout=60) == 0
    daemon.start()
    until(lambda: daemon.instances() == {"stuck": "Running"}, "it runs again")


def test_a_crash_is_followed_by_a_restart(daemon: Daemon) -> None:
    def pid(name: str) -> int:
        return int(daemon.request("GET", f"/1.0/instances/{name}/state")["pid"])

    def crash(name: str) -> int:
        before = pid(name)
        os.kill(before, signal.SIGKILL)
        return before

    make(daemon, "again", start=True, config={"boot.autorestart": "true"})
    make(daemon, "once", start=True)
    crash("once")
    for _ in range(3):  # half a second, one and two: the next wait is long enough to be seen
        before = crash("again")
        until(lambda before=before: pid("again") not in (0, -1, before), "it runs again")  # type: ignore[misc]
    crash("again")
    until(lambda: daemon.instances()["again"] == "Stopped", "it waits")
    assert power(daemon, "again") == "RUNNING", "the next daemon has to start it when this one dies"
    daemon.request("PUT", "/1.0/instances/again/state", {"action": "stop"})
    assert power(daemon, "again") == "STOPPED"
    with pytest.raises(AssertionError):
        until(lambda: daemon.instances()["again"] != "Stopped", "a restart that was called off", 4.5)
    assert daemon.instances() == {"again": "Stopped", "once": "Stopped"}
    assert power(daemon, "once") == "STOPPED"
