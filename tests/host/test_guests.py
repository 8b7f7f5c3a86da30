"""The main job on the real kernel: Debian 12 and 13 machines boot, run, talk, survive the daemon and stop."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, unique
from tests.support.images import image_files
from tests.support.wait import until

OUTSIDE = "198.51.100.1"


@pytest.fixture(scope="module")
def host() -> Iterator[Daemon]:
    """Run one daemon whose network has an outside."""
    daemon = Daemon()
    try:
        assert daemon.netns
        assert daemon.netns.add_outside() == OUTSIDE
        daemon.start()
        yield daemon
    finally:
        problems = daemon.close()
    assert not problems, problems


class Guest:
    """A running Debian machine."""

    def __init__(self, host: Daemon, name: str) -> None:
        self.host = host
        self.name = name

    def run(self, *command: str) -> str:
        """Run a command in it, return its output."""
        out: str = self.host.command("exec", self.name, "--", *command).stdout
        return out

    def fails(self, *command: str) -> bool:
        """Return whether a command fails in it."""
        return self.host.command("exec", self.name, "--", *command, check=False).returncode != 0

    def state(self) -> dict[str, Any]:
        """Return its state as the API tells it."""
        state: dict[str, Any] = self.host.request("GET", f"/1.0/instances/{self.name}/state")
        return state

    def await_status(self, status: str) -> None:
        """Wait until it has a status."""
        until(lambda: self.state()["status"] == status, f"{self.name} is {status}", 60)

    def await_boot(self) -> None:
        """Wait until its systemd has started everything, and nothing failed."""

        def settled() -> str:
            state = self.host.command("exec", self.name, "--", "systemctl", "is-system-running", check=False).stdout
            return state.strip() if state.strip() in ("running", "degraded") else ""

        state = until(settled, f"{self.name} has booted", 90)
        assert state == "running", self.run("systemctl", "--failed", "--no-legend")


@pytest.fixture(scope="module", params=["debian/12", "debian/13"])
def guest(request: pytest.FixtureRequest, host: Daemon) -> Iterator[Guest]:
    """Boot a machine."""
    alias = request.param.replace("/", "-")
    host.import_image(alias, image_files(request.param))
    guest = Guest(host, unique(alias))
    host.command("launch", alias, guest.name)
    guest.await_boot()
    yield guest
    host.command("delete", "--force", guest.name)


def test_it_is_an_unprivileged_machine(guest: Guest) -> None:
    inside, outside, length = (int(field) for field in guest.run("cat", "/proc/self/uid_map").split())
    assert inside == 0
    assert outside >= 65536
    assert length >= 65536
    assert guest.run("cat", "/proc/1/comm") == "systemd\n"
    assert guest.run("hostname").strip() == guest.name
    status = dict(line.split(":\t", 1) for line in guest.run("cat", "/proc/self/status").splitlines())
    assert status["Seccomp"] == "2"
    for namespace in ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup"):
        assert guest.run("readlink", f"/proc/1/ns/{namespace}").strip() != os.readlink(f"/proc/self/ns/{namespace}")


def test_nothing_of_the_host_is_in_reach(guest: Guest) -> None:
    assert guest.fails("dmesg")
    assert guest.fails("mknod", "/root/disk", "b", "8", "0")
    assert guest.fails("sh", "-c", "echo 1 > /proc/sys/kernel/panic")
    assert guest.fails("sh", "-c", "echo b > /proc/sysrq-trigger")
    assert guest.run("sh", "-c", "find /dev -type b").strip() == ""
    assert guest.fails("sh", "-c", "cat /proc/kcore | head -c 1 | grep -q .")
    mine = [line.split() for line in Path("/proc/keys").read_text().splitlines()]
    visible = {line.split()[0] for line in guest.run("cat", "/proc/keys").splitlines()}
    assert not visible & {key for key, *_, uid in (fields[:6] for fields in mine) if uid == "0"}
    assert guest.run("cat", "/proc/self/cgroup").strip().splitlines()[-1].startswith("0::/")


def test_it_sees_cgroup_v2_alone(guest: Guest) -> None:
    assert guest.run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup").strip() == "cgroup2fs"


def test_network(guest: Guest, host: Daemon, busybox_files: list[str]) -> None:
    def address() -> str:
        addresses = guest.state()["network"]["eth0"]["addresses"]
        return next((a["address"] for a in addresses if a["family"] == "inet"), "")

    mine = until(address, "an IPv4 address")
    until(lambda: not guest.fails("ping", "-c1", "-W2", OUTSIDE), "the outside answers")
    neighbour = unique("n")
    host.command("launch", host.import_image("busybox", busybox_files), neighbour)
    until(lambda: f"{neighbour}.lxd" in guest.run("sh", "-c", f"getent ahostsv4 {neighbour}.lxd || true"), "its name")
    answer = host.command("exec", neighbour, "--", "nslookup", f"{guest.name}.lxd", check=False).stdout
    assert mine in answer
    host.command("delete", "--force", neighbour)


def test_exec_in_it(guest: Guest) -> None:
    assert guest.run("cat", "/etc/os-release").startswith('PRETTY_NAME="Debian')
    assert guest.run("id", "-u").strip() == "0"
    own = guest.run("cat", "/proc/self/status")
    init = guest.run("cat", "/proc/1/status")
    for line in ("CapBnd", "Seccomp"):
        assert [x for x in own.splitlines() if x.startswith(line)] == [
            x for x in init.splitlines() if x.startswith(line)
        ]


def test_it_runs_on_without_the_daemon(guest: Guest, host: Daemon) -> None:
    before = guest.state()["pid"]
    host.signal(signal.SIGKILL)
    assert Path(f"/proc/{before}").exists()
    host.start()
    assert guest.state()["pid"] == before
    assert guest.run("echo", "here") == "here\n"
    assert host.stop() == 0
    host.start()
    assert guest.state()["pid"] == before
    log = host.command("console", guest.name, "--show-log").stdout
    assert "Debian" in log


def test_pause(guest: Guest, host: Daemon) -> None:
    host.command("pause", guest.name)
    assert guest.state()["status"] == "Frozen"
    used = guest.state()["cpu"]["usage"]
    time.sleep(0.3)
    assert guest.state()["cpu"]["usage"] == used
    host.command("start", guest.name)
    assert guest.run("echo", "awake") == "awake\n"


def test_reboot_from_inside(guest: Guest) -> None:
    before = guest.state()["pid"]
    guest.host.command("exec", guest.name, "--", "systemctl", "reboot", check=False)
    until(lambda: guest.state()["pid"] not in (0, before), "another PID 1", 60)
    guest.await_boot()


def test_halt_from_inside_and_start_again(guest: Guest) -> None:
    guest.host.command("exec", guest.name, "--", "systemctl", "poweroff", check=False)
    guest.await_status("Stopped")
    guest.host.command("start", guest.name)
    guest.await_boot()


def test_clean_stop(guest: Guest) -> None:
    marker = "ExecStop=/bin/touch /root/stopped-cleanly"
    unit = f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n{marker}\n"
    guest.host.command("file", "push", "-", f"{guest.name}/etc/systemd/system/marker.service", input=unit)
    guest.run("systemctl", "daemon-reload")
    guest.run("systemctl", "start", "marker.service")
    guest.host.command("stop", guest.name, "--timeout", "60")
    assert guest.state()["status"] == "Stopped"
    guest.host.command("start", guest.name)
    assert not guest.fails("test", "-e", "/root/stopped-cleanly")
    guest.await_boot()


def test_end_of_init_while_the_daemon_is_away(guest: Guest, host: Daemon) -> None:
    pid = guest.state()["pid"]
    host.signal(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "PID 1 has gone")
    host.start()
    guest.await_status("Stopped")
    row = json.loads(host.command("list", guest.name, "--format", "json").stdout)[0]
    assert row["status"] == "Stopped"
    host.command("start", guest.name)
    guest.await_boot()
