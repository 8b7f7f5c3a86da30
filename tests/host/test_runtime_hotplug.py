"""Device nodes that a running container is given and that are taken from it, driven through Runtime."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylxc.errors import PylxcError
from pylxc.kernel import bpf
from pylxc.runtime import hotplug
from pylxc.runtime.spec import DeviceNode
from tests.support.daemon import unique
from tests.support.leaks import Leaks
from tests.support.runtime import Host, busybox_tree
from tests.support.wait import until

KMSG = DeviceNode(source="/dev/kmsg", path="/dev/hot/kmsg", kind="char", major=1, minor=11)
_SCRIPT = """echo began
while read word; do head -c 0 /dev/hot/kmsg 2>&1 && echo "opened $word" || echo "failed $word"; done"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Return a runtime."""
    host = Host(tmp_path / "state")
    yield host
    host.close()
    until(lambda: not Leaks(str(host.root)).processes(None), "all processes have gone")


def test_nodes_come_and_go(host: Host, tmp_path: Path) -> None:
    pid = host.start(busybox_tree(tmp_path / "tree", _SCRIPT), idmap=None)
    host.console("c1", "began")
    with host.runtime.console_attach("c1") as console:
        console.sendall(b"first\n")
        host.console("c1", "failed first")
        host.runtime.allow_devices("c1", [], [KMSG])
        hotplug.plug(host.runtime.spawn, host.paths.instance_run("c1"), [], [KMSG])
        console.sendall(b"second\n")
        host.console("c1", "opened second")
        assert _may_open(pid, "/dev/kmsg")
        hotplug.unplug(host.runtime.spawn, host.paths.instance_run("c1"), [KMSG.path])
        host.runtime.allow_devices("c1", [KMSG], [])
        console.sendall(b"third\n")
        host.console("c1", "failed third")
        # Not because the node is gone: the control group says no, to this device and to no other.
        assert not _may_open(pid, "/dev/kmsg")
        assert _may_open(pid, "/dev/null")
    assert os.listdir(f"/proc/{pid}/root/dev/hot") == []


def _may_open(pid: int, path: str) -> bool:
    """Return whether a process in the control groups of `pid` may open a device of the host."""
    groups = [line.strip().split(":")[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    joins = [f"echo $$ > /sys/fs/cgroup/{names or 'unified'}{group}/cgroup.procs" for names, group in groups]
    joins = [join for join in joins if "devices" in join] or [join.replace("/unified", "", 1) for join in joins]
    return not subprocess.run(["sh", "-ec", f"{'; '.join(joins)}; : < {path}"], check=False).returncode


def test_all_or_none(host: Host, tmp_path: Path) -> None:
    pid = host.start(busybox_tree(tmp_path / "tree"))
    host.console("c1", "ready")
    nobody = DeviceNode(source="/dev/kmsg", path="/dev/nobody", kind="char", major=1, minor=11, uid=1 << 31)
    nowhere = DeviceNode(source="/dev/kmsg", path="/proc/nowhere", kind="char", major=1, minor=11)
    for second in (nobody, nowhere):
        with pytest.raises(PylxcError):
            hotplug.plug(host.runtime.spawn, host.paths.instance_run("c1"), [], [KMSG, second])
        assert "kmsg" not in Path(f"/proc/{pid}/mountinfo").read_text()


def test_device_program_of_a_v2_group_is_replaced() -> None:
    root = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    group = f"{root}/{unique('pylxc-test')}"
    os.mkdir(group)

    def opens(path: str) -> bool:
        script = f"echo $$ > {group}/cgroup.procs; : < {path}"
        return not subprocess.run(["sh", "-ec", script], check=False, stderr=subprocess.DEVNULL).returncode

    try:
        bpf.restrict_devices(group, ["c 1:3 rwm"])
        assert (opens("/dev/null"), opens("/dev/zero")) == (True, False)
        bpf.restrict_devices(group, ["c 1:5 rwm"])
        assert (opens("/dev/null"), opens("/dev/zero")) == (False, True)
    finally:
        os.rmdir(group)
