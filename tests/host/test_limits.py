"""Limits as a guest feels them: what it is told to have is all that it gets, at once and after a restart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import unix_connect

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.wait import until

Guest = str

TOOLS = {"type": "disk", "source": "/", "path": "/host", "readonly": "true"}
"""The host's programs, as a guest has few: `chroot /host python3`."""


@pytest.fixture(scope="module", autouse=True)
def pool(module_daemon: Daemon) -> None:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})


@pytest.fixture
def guest(daemon: Daemon, busybox: str) -> Iterator[Guest]:
    """Return the name of a running guest with the host's tools in /host."""
    yield launch(daemon, busybox)
    daemon.delete_all()


def dotted(config: dict[str, str]) -> dict[str, str]:
    """Return a configuration whose keys may have underscores where there are dots."""
    return {key if "." in key else key.replace("_", "."): value for key, value in config.items()}


def launch(daemon: Daemon, busybox: str, devices: dict[str, Any] | None = None, /, **config: str) -> Guest:
    name = unique("c")
    body = {"name": name, "source": {"type": "image", "alias": busybox}, "start": True, "config": dotted(config)}
    daemon.request("POST", "/1.0/instances", {**body, "devices": {"host": TOOLS, **(devices or {})}})
    return name


def configure(daemon: Daemon, guest: Guest, **config: str) -> None:
    daemon.request("PATCH", f"/1.0/instances/{guest}", {"config": dotted(config)})


def device(daemon: Daemon, guest: Guest, name: str, keys: dict[str, str]) -> None:
    daemon.request("PATCH", f"/1.0/instances/{guest}", {"devices": {name: keys}})


def sh(daemon: Daemon, guest: Guest, script: str, *, check: bool = True) -> str:
    done = daemon.command("exec", guest, "--", "sh", "-c", script, check=check)
    return done.stdout + done.stderr


def python(daemon: Daemon, guest: Guest, script: str) -> str:
    """Run Python in a guest; return what it printed, and how it ended when not well."""
    done = daemon.command("exec", guest, "--", "chroot", "/host", "/usr/bin/python3", "-c", script, check=False)
    return done.stdout + (f"{done.stderr[-300:]}status {done.returncode}" if done.returncode else "")


def refused(text: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
    with pytest.raises(ApiError) as caught:
        call(*args, **options)
    assert text in caught.value.text
    assert "\n" not in caught.value.text


def cpus(daemon: Daemon, guest: Guest) -> str:
    """Return the CPUs that a guest's processes may run on."""
    return sh(daemon, guest, "sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status").strip()


def warnings(daemon: Daemon, guest: Guest) -> list[dict[str, Any]]:
    found = daemon.request("GET", "/1.0/warnings?recursion=1")
    return [each for each in found if each["entity_url"] == f"/1.0/instances/{guest}"]


needs_two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) != 2, reason="is written for two CPUs")


@needs_two_cpus
def test_cpus_are_spread_as_guests_come_and_go(daemon: Daemon, guest: Guest, busybox: str) -> None:
    configure(daemon, guest, limits_cpu="1")
    assert cpus(daemon, guest) == "0"
    second = launch(daemon, busybox, limits_cpu="1")
    assert cpus(daemon, second) == "1"
    daemon.stop()
    daemon.start()
    assert (cpus(daemon, guest), cpus(daemon, second)) == ("0", "1")
    pinned = launch(daemon, busybox, limits_cpu="1-1")
    assert cpus(daemon, pinned) == "1"
    daemon.command("stop", "--force", guest)
    until(lambda: cpus(daemon, second) == "0", "the guest that can be moved makes room for the one that cannot")
    refused("none of the CPUs 70-71 is online", configure, daemon, second, limits_cpu="70-71")
    assert cpus(daemon, second) == "0"
    daemon.command("config", "unset", second, "limits.cpu")
    assert cpus(daemon, second) == "0-1"
    configure(daemon, guest, limits_cpu="70-71")
    daemon.command("start", guest)
    assert cpus(daemon, guest) == "0-1"
    assert "none of the CPUs 70-71 is online" in warnings(daemon, guest)[0]["last_message"]
    configure(daemon, guest, limits_processes="50")
    configure(daemon, guest, limits_cpu="1-1")
    assert cpus(daemon, guest) == "1"
    assert warnings(daemon, guest)[0]["status"] == "resolved"


BURN = """
import time
%s
begin, deadline = time.process_time(), time.monotonic() + 1.5
while time.monotonic() < deadline: pass
print(time.process_time() - begin)
"""


def test_cpu_time_is_held_hard(daemon: Daemon, guest: Guest) -> None:
    configure(daemon, guest, limits_cpu_allowance="5ms/100ms")
    assert float(python(daemon, guest, BURN % "")) < 0.2
    configure(daemon, guest, limits_cpu_allowance="100%")
    until(lambda: float(python(daemon, guest, BURN % "")) > 0.25, "the guest gets more than it was held to")


def test_cpu_time_is_shared_by_weight(daemon: Daemon, guest: Guest, busybox: str) -> None:
    other = launch(daemon, busybox, limits_cpu="0-0", limits_cpu_allowance="10%")
    configure(daemon, guest, limits_cpu="0-0", limits_cpu_priority="10")
    # Both begin at once: who has little of the CPU starts late.
    burn = BURN % 'print("ready", flush=True); input()'
    script = f"exec chroot /host /usr/bin/python3 -c '{burn}'"
    commands = [daemon.command_line("exec", name, "--", "sh", "-c", script) for name in (guest, other)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, env=daemon.env, **pipes) for command in commands]
    for each in running:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in running:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    strong, weak = (float(each.communicate(timeout=30)[0]) for each in running)
    assert strong > 2 * weak


ALLOCATE = "print(len(bytearray(%d << 20)))"


def test_memory_and_who_has_none_left(daemon: Daemon, guest: Guest) -> None:
    configure(daemon, guest, limits_memory="64MiB")
    assert python(daemon, guest, ALLOCATE % 30) == f"{30 << 20}\n"
    with unix_connect(f"{daemon.dir}/unix.socket", "ws://x/1.0/events?type=lifecycle") as events:
        assert "status 137" in python(daemon, guest, ALLOCATE % 100)
        told = (json.loads(events.recv(timeout=30))["metadata"] for _ in range(100))
        event = next(each for each in told if each["action"] == "instance-oom")
    assert (event["source"], event["context"]["limit"]) == (f"/1.0/instances/{guest}", "64MiB")
    (warning,) = until(lambda: warnings(daemon, guest), "the warning is there")
    assert (warning["type"], warning["status"], warning["severity"]) == (
        "Instance ran out of memory",
        "new",
        "moderate",
    )
    assert warning["count"] >= 1
    assert "limits.memory is 64MiB" in warning["last_message"]
    listed = daemon.command("warning", "list", "-c", "uS", "-f", "csv").stdout
    assert f"{warning['uuid']},NEW" in listed
    daemon.command("warning", "ack", warning["uuid"])
    assert warning["uuid"] not in daemon.command("warning", "list", "-f", "csv").stdout
    assert warning["uuid"] in daemon.command("warning", "list", "--all", "-f", "csv").stdout
    assert "acknowledged" in daemon.command("warning", "show", warning["uuid"]).stdout
    daemon.command("warning", "delete", warning["uuid"])
    assert warnings(daemon, guest) == []
    refused("limits.memory", configure, daemon, guest, limits_memory="some")
    configure(daemon, guest, limits_memory_enforce="soft")
    assert python(daemon, guest, ALLOCATE % 100) == f"{100 << 20}\n"


def test_init_killed_for_want_of_memory_is_told_of(daemon: Daemon, guest: Guest) -> None:
    configure(daemon, guest, limits_memory="32MiB")
    script = ALLOCATE % 100
    sh(daemon, guest, f"printf '#!/bin/sh\\nexec chroot /host /usr/bin/python3 -c \"{script}\"\\n' > /sbin/greedy")
    sh(daemon, guest, "chmod +x /sbin/greedy; rm /sbin/init; ln -s greedy /sbin/init")
    daemon.command("restart", "--force", guest)
    until(lambda: warnings(daemon, guest), "the warning is there")
    until(lambda: daemon.instances()[guest] == "Stopped", "the guest has ended")


def test_memory_of_a_share_of_the_hosts(daemon: Daemon, guest: Guest) -> None:
    configure(daemon, guest, limits_memory="50%", limits_memory_swap="false")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    line = daemon.command("list", guest, "-c", "mM", "-f", "csv").stdout.strip()
    assert re.fullmatch(r"[0-9.]+[KM]iB,[0-9.]+%", line), line
    state = daemon.request("GET", f"/1.0/instances/{guest}/state")
    assert state["memory"]["total"] == total // 2


def test_processes(daemon: Daemon, guest: Guest) -> None:
    script = "for i in $(seq 30); do sleep 100 >/dev/null 2>&1 & done; ls -d /proc/[0-9]* | wc -l"
    configure(daemon, guest, limits_processes="20")
    assert "can't fork" in sh(daemon, guest, script, check=False)
    daemon.command("restart", "--force", guest)
    assert "can't fork" in sh(daemon, guest, script, check=False)
    daemon.command("restart", "--force", guest)
    daemon.command("config", "unset", guest, "limits.processes")
    assert int(sh(daemon, guest, script, check=False).split()[-1]) >= 30


DISK = """
import mmap, os, time
fd = os.open("%s", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
block = mmap.mmap(-1, %d)
begin = time.monotonic()
for number in range(%d): os.%s(fd, %s, number * len(block))
print(time.monotonic() - begin)
"""


def rate(daemon: Daemon, guest: Guest, way: str, path: str, block: int, count: int) -> float:
    """Return the seconds that a guest takes to write or read blocks of a file, past the page cache."""
    call, what = ("pwrite", "block") if way == "write" else ("preadv", "[block]")
    return float(python(daemon, guest, DISK % (path, block, count, call, what)))


def test_disks(daemon: Daemon, guest: Guest, tmp_path: Path, busybox: str) -> None:
    data = {"type": "disk", "source": str(tmp_path), "path": "/host/mnt", "shift": "true"}

    def is_quick(way: str, block: int, count: int) -> bool:
        """Tell whether it ever is: others use the disk as well."""
        return any(rate(daemon, guest, way, "/mnt/file", block, count) < 0.5 for _ in range(10))

    def is_held(way: str, block: int, count: int) -> bool:
        """Tell whether it takes its time, and no more than that once others leave it the disk."""
        for _ in range(10):
            seconds = rate(daemon, guest, way, "/mnt/file", block, count)
            if seconds < 3:
                return seconds > 0.6
        return False

    device(daemon, guest, "data", data)
    assert is_quick("write", 1 << 18, 4)
    device(daemon, guest, "data", {**data, "limits.write": "1MiB"})
    assert is_held("write", 1 << 18, 4)
    assert is_quick("read", 1 << 18, 4)
    device(daemon, guest, "data", {**data, "limits.max": "8iops"})
    assert is_held("read", 4096, 12)
    device(daemon, guest, "data", data)
    assert is_quick("read", 4096, 12)
    root = {"type": "disk", "path": "/", "pool": "default", "limits.read": "1MiB", "limits.write": "8iops"}
    other = launch(daemon, busybox, {"root": root})
    begin = time.monotonic()
    sh(daemon, other, "for i in $(seq 12); do echo x > /f$i; sync /f$i; done")
    assert 0.6 < time.monotonic() - begin < 30


def test_a_disk_that_no_block_device_is_below(daemon: Daemon, guest: Guest) -> None:
    keys = {"type": "disk", "source": "/dev/shm", "path": "/shm", "limits.max": "1MiB"}
    refused("lies on tmpfs, which is on no block device", device, daemon, guest, "shm", keys)
    assert "shm" not in daemon.request("GET", f"/1.0/instances/{guest}")["devices"]
    assert sh(daemon, guest, "mount | grep -c ' /shm '", check=False).strip() == "0"


def group_files(guest: Guest, *names: str) -> list[Path]:
    """Return the files of a guest's control groups that have one of these names, in either layout."""
    found = (Path("/sys/fs/cgroup").glob(f"{prefix}pylxc/{guest}.*/{name}") for prefix in ("", "*/") for name in names)
    return [path for each in found for path in each]


def test_weight_of_disks_and_swapping(daemon: Daemon, guest: Guest) -> None:
    """What comes of them depends on the scheduler of the disk and on how much memory there is: the kernel is told."""
    if weights := group_files(guest, "blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"):
        configure(daemon, guest, limits_disk_priority="1")
        assert {path.read_text().split()[-1] for path in weights} <= {"100", "20"}
        configure(daemon, guest, limits_disk_priority="10")
        assert {path.read_text().split()[-1] for path in weights} <= {"1000", "200"}
    else:
        refused("limits.disk.priority cannot be applied", configure, daemon, guest, limits_disk_priority="10")
    if swappiness := group_files(guest, "memory.swappiness"):
        configure(daemon, guest, limits_memory_swap_priority="3")
        assert [path.read_text() for path in swappiness] == ["67\n"]
    else:
        refused("has no memory.swappiness", configure, daemon, guest, limits_memory_swap_priority="3")


HUGE = """
import mmap, os, sys
area = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)  # MAP_HUGETLB
file = os.open(sys.executable, os.O_RDONLY)
for begin in (0, 2 << 20):
    try: print(os.readv(file, [memoryview(area)[begin:begin + (2 << 20)]]), flush=True)
    except OSError as error: print(error.strerror, flush=True)
os._exit(0)
"""


def test_huge_pages(daemon: Daemon, guest: Guest) -> None:
    pages = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    before = pages.read_text()
    pages.write_text(str(int(before) + 3))
    try:
        assert python(daemon, guest, HUGE).splitlines() == [str(2 << 20)] * 2
        configure(daemon, guest, limits_hugepages_2MB="2MiB")
        first, second = python(daemon, guest, HUGE).splitlines()
        assert (first, second != first) == (str(2 << 20), True)
    finally:
        pages.write_text(before)


def test_limits_that_this_host_does_not_have(daemon: Daemon, guest: Guest, busybox: str) -> None:
    key = "limits.hugepages.64KB"
    for size in ("64KB", "1MB", "1GB"):
        if not group_files(guest, f"hugetlb.{size}.max", f"hugetlb.{size}.limit_in_bytes"):
            refused(f"limits.hugepages.{size} cannot be applied: the cgroup controller 'hugetlb' has no hugetlb.{size}",
                    configure, daemon, guest, **{f"limits.hugepages.{size}": "1MiB"})  # fmt: skip
    refused("limits.network.priority is not supported", configure, daemon, guest, limits_network_priority="5")
    configure(daemon, guest, limits_processes="50", limits_network_priority="0")
    other = launch(daemon, busybox, **{key: "1MiB"})
    (warning,) = warnings(daemon, other)
    assert warning["type"] == "Limit cannot be applied"
    assert f"runs without {key}: the cgroup controller 'hugetlb' has no hugetlb.64KB" in warning["last_message"]
    configure(daemon, other, limits_processes="50")
    daemon.command("config", "unset", other, key)
    assert [each["status"] for each in warnings(daemon, other)] == ["resolved"]


CAP_SYS_RESOURCE = 24
RLIMITS = {
    "as": ("address space", 4 << 30),
    "core": ("core file size", 1000),
    "cpu": ("cpu time", 2000),
    "data": ("data size", 1 << 30),
    "fsize": ("file size", 3 << 30),
    "locks": ("file locks", 5),
    "memlock": ("locked memory", 70000),
    "msgqueue": ("msgqueue size", 8000),
    "nice": ("nice priority", 21),
    "nofile": ("open files", 111),
    "nproc": ("processes", 3000),
    "rss": ("resident set", 1 << 28),
    "rtprio": ("realtime priority", 12),
    "rttime": ("realtime timeout", 900000),
    "sigpending": ("pending signals", 50),
    "stack": ("stack size", 8 << 20),
}
"""What the kernel calls each limit, and a value."""


def test_rlimits_sysctls_and_environment(daemon: Daemon, busybox: str) -> None:
    keys = {f"limits.kernel.{name}": f"{value}:{value + 1}" for name, (_, value) in RLIMITS.items()}
    if not may_raise_limits():
        for raised in ("nice", "rtprio"):
            key = f"limits.kernel.{raised}"
            refused(f"The kernel refuses {key}={keys[key]}: ", launch, daemon, busybox, **{key: keys.pop(key)})
    name = launch(daemon, busybox, **keys | {"linux.sysctl.net.ipv4.ip_forward": "1", "environment.COLOUR": "red"})
    shown = sh(daemon, name, "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward; echo $COLOUR")
    assert shown.split() == ["111", "112", "1", "red"]
    limits = sh(daemon, name, "cat /proc/1/limits")
    for called, value in (RLIMITS[key.removeprefix("limits.kernel.")] for key in keys):
        assert re.search(rf"^Max {called} +{value} +{value + 1} ", limits, re.MULTILINE), (called, limits)
    daemon.delete_all()


def may_raise_limits() -> bool:
    """Tell whether this host's root may do that; tests/vm asks of one where it may."""
    held = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    return held is not None and bool(int(held[1], 16) >> CAP_SYS_RESOURCE & 1)


def test_kernel_modules_are_there_before_a_guest_starts(daemon: Daemon, guest: Guest) -> None:
    present = next(name for name in sorted(os.listdir("/sys/module")) if "-" not in name)
    configure(daemon, guest, **{"linux.kernel_modules": present})
    refused("Failed loading kernel module 'no_such'", configure, daemon, guest, **{"linux.kernel_modules": "no_such"})
    daemon.command("stop", "--force", guest)
    configure(daemon, guest, **{"linux.kernel_modules": f"{present},no_such"})
    refused(
        "Failed loading kernel module 'no_such'", daemon.request, "PUT", f"/1.0/instances/{guest}/state",
        {"action": "start"},
    )  # fmt: skip
    refused("Invalid kernel module '-r'", configure, daemon, guest, **{"linux.kernel_modules": "-r"})
