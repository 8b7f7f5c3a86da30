"""What a guest sees of its CPUs and memory where the host runs LXCFS: its own; and what becomes of it with LXCFS."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.wait import until

ROOT = "/var/lib/lxcfs"


class Lxcfs:
    """LXCFS in the mount namespace of a daemon, which nobody else sees."""

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.process
        self._enter = ("nsenter", f"--target={daemon.process.pid}", "--mount", "--")
        self._pid_file = f"{daemon.dir}/lxcfs.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*self._enter, "lxcfs", f"--pidfile={self._pid_file}", "--foreground", ROOT]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        look = [*self._enter, "cat", f"{ROOT}/proc/uptime"]
        until(lambda: subprocess.run(look, capture_output=True, check=False).stdout, "LXCFS is there")

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def unmount(self) -> None:
        subprocess.run([*self._enter, "umount", "--lazy", ROOT], check=False, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        if self._process:
            self.signal(signal.SIGKILL)
        self.unmount()


@pytest.fixture(scope="module")
def host(need: Callable[..., None], busybox_files: list[str]) -> Iterator[Daemon]:
    """Return a daemon in a mount namespace of its own."""
    need("lxcfs")
    daemon = Daemon()
    try:
        daemon.start(shared_mounts=True)
        daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
        daemon.import_image("busybox", busybox_files)
        yield daemon
    finally:
        problems = daemon.close()
    assert not problems, problems


@pytest.fixture
def lxcfs(host: Daemon) -> Iterator[Lxcfs]:
    """Return the running LXCFS of `host`."""
    made = Lxcfs(host)
    made.start()
    yield made
    made.close()


def launch(daemon: Daemon) -> str:
    name = unique("c")
    config = {"limits.memory": "64MiB", "limits.cpu": "1"}
    body = {"name": name, "source": {"type": "image", "alias": "busybox"}, "start": True, "config": config}
    daemon.request("POST", "/1.0/instances", body)
    return name


def memory(daemon: Daemon, name: str) -> int:
    """Return the KiB of memory that a guest believes to have."""
    return int(daemon.command("exec", name, "--", "sh", "-c", "cat /proc/meminfo").stdout.split()[1])


def own(daemon: Daemon, name: str) -> bool:
    return memory(daemon, name) == 64 << 10


def test_guest_sees_its_own(host: Daemon, lxcfs: Lxcfs) -> None:
    del lxcfs
    name = launch(host)
    assert own(host, name)
    script = "grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online; cut -d. -f1 /proc/uptime"
    count, online, uptime = host.command("exec", name, "--", "sh", "-c", script).stdout.split()
    assert (count, online.strip() in ("0", "1")) == ("1", True)
    assert int(uptime) < 60
    host.request("PATCH", f"/1.0/instances/{name}", {"config": {"limits.memory": "128MiB"}})
    assert memory(host, name) == 128 << 10


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_dead_or_hangs_breaks_no_start(host: Daemon, lxcfs: Lxcfs, how: int) -> None:
    lxcfs.signal(how)
    name = launch(host)
    assert memory(host, name) > 1 << 20
    assert host.request("GET", f"/1.0/instances/{name}/state")["processes"] >= 1


def test_guests_that_run_follow_a_restart(host: Daemon, lxcfs: Lxcfs) -> None:
    name = launch(host)
    assert own(host, name)
    lxcfs.close()
    until(lambda: host.command("exec", name, "--", "cat", "/proc/meminfo", check=False).returncode == 0, "a meminfo")
    until(lambda: not own(host, name), "the kernel's own is back")
    lxcfs.start()
    until(lambda: own(host, name), "the new LXCFS's is there")
