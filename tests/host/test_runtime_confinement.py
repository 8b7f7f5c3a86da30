"""What a container has, sees and may do, seen from inside as its PID 1's child."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylxc.kernel import bpf, cgroup
from pylxc.runtime.spec import Confinement, DeviceNode, Limits, Mount, SyscallRule
from tests.support.runtime import UNPRIVILEGED, Host, busybox_tree, status

ALL_CAPABILITIES = int(status("self")["CapBnd"], 16)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Return a runtime."""
    host = Host(tmp_path / "state")
    yield host
    host.close()


def test_namespaces_and_ids(host: Host, tmp_path: Path) -> None:
    script = (
        "id -u; hostname; ls /proc | grep -c '^[0-9]*$'; ls /proc/1/fd | tr '\\n' ' '; readlink /proc/1/fd/0;"
        "tr '\\0' '\\n' < /proc/1/environ; ip link | grep -c 'lo:.*UP'; cat /proc/self/cgroup; ls -ld /script"
    )
    tree = busybox_tree(tmp_path / "tree", script)
    shown = host.run(tree, environment={"COLOUR": "red"})
    pid = host.runtime.get("c1").pid  # type: ignore[union-attr]
    lines = shown.splitlines()
    assert lines[:2] == ["0", "c1"]
    assert "container=lxc" in lines
    assert "COLOUR=red" in lines
    assert "/dev/pts/0" in shown
    assert "0 1 2" in shown
    assert "0::/" in lines
    for kind in ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert status(pid)["Uid"].split()[0] == "1000000"
    # On disk the tree stays as it was; a file made inside belongs to root on disk.
    assert (tree / "script").stat().st_uid == 0


def test_capabilities_and_seccomp_of_an_unprivileged_one(host: Host, tmp_path: Path) -> None:
    host.run(busybox_tree(tmp_path / "tree"), confinement=Confinement(drop_capabilities=("net_raw",)))
    facts = status(host.runtime.get("c1").pid)  # type: ignore[union-attr]
    bounding = int(facts["CapBnd"], 16)
    assert not bounding >> 13 & 1
    assert bounding | 1 << 13 | 1 << 24 == ALL_CAPABILITIES | 1 << 24
    assert int(facts["CapPrm"], 16) == bounding
    assert facts["CapAmb"] == "0000000000000000"
    assert facts["Seccomp"] == "2"
    assert facts["NoNewPrivs"] == "0"


def test_a_privileged_one_cannot_change_the_kernel(host: Host, tmp_path: Path) -> None:
    script = (
        "echo x > /proc/sys/kernel/core_pattern || echo core refused;"
        "echo 1 > /proc/sys/net/ipv4/ip_forward && echo net allowed;"
        "echo 1 > /sys/kernel/profiling; mknod /tmp/disk b 7 0 && echo made; cat /tmp/disk || echo disk refused"
    )
    shown = host.run(busybox_tree(tmp_path / "tree", script), idmap=None)
    for line in ("core refused", "net allowed", "made", "disk refused"):
        assert line in shown.splitlines()
    bounding = int(status(host.runtime.get("c1").pid)["CapBnd"], 16)  # type: ignore[union-attr]
    for number in (16, 17, 25, 32, 33):  # sys_module, sys_rawio, sys_time, mac_override, mac_admin
        assert not bounding >> number & 1


@pytest.mark.parametrize("idmap", [None, UNPRIVILEGED])
def test_the_hosts_log_is_not_readable(host: Host, tmp_path: Path, idmap: object) -> None:
    shown = host.run(busybox_tree(tmp_path / "tree", "dmesg && echo leak || echo refused"), idmap=idmap)
    assert "refused" in shown.splitlines()


def test_seccomp_policies(host: Host, tmp_path: Path) -> None:
    tree = busybox_tree(tmp_path / "tree", "mkdir /tmp/x || echo mkdir refused; hostname other || echo name refused")
    denied = {"mkdir": "errno:38", "mkdirat": "errno:38", "sethostname": "errno:1"}
    rules = tuple(SyscallRule(name, action) for name, action in denied.items())
    shown = host.run(tree, confinement=Confinement(seccomp=rules))
    assert "mkdir: can't create directory '/tmp/x': Function not implemented" in shown
    assert "name refused" in shown


def test_nothing_of_the_host_is_mounted(host: Host, tmp_path: Path) -> None:
    shown = host.run(busybox_tree(tmp_path / "tree", "cat /proc/self/mountinfo; ls /dev; ls /sys/class/net"))
    targets = {line.split()[4] for line in shown.splitlines() if " - " in line}
    assert {"/", "/dev", "/proc", "/sys", "/dev/pts", "/dev/console", "/sys/fs/cgroup"} <= targets
    assert all(target == "/" or target.startswith(("/dev", "/proc", "/sys")) for target in targets)
    assert "vda" not in shown.splitlines()


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "mnt"])
def test_links_in_a_hostile_tree_lead_nowhere(host: Host, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    tree = busybox_tree(tmp_path / "tree")
    (tree / name).rmdir()
    (tree / name).symlink_to(f"../../../../../../../../../..{victim}")
    mount = Mount(source="none", target="/mnt", fstype="tmpfs", create="dir")
    try:
        host.start(tree, mounts=(mount,))
    except Exception as error:  # noqa: BLE001 (an error is fine, harm is not)
        assert "mounting" in str(error)  # noqa: PT017
    assert list(victim.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_magic_links_are_refused(host: Host, tmp_path: Path) -> None:
    tree = busybox_tree(tmp_path / "tree")
    (tree / "mnt").rmdir()
    (tree / "mnt").symlink_to("/proc/self/fd/3")
    with pytest.raises(Exception, match="mounting the container's file systems"):
        host.start(tree, mounts=(Mount(source="none", target="/mnt/x", fstype="tmpfs", create="dir"),))


def test_mounts(host: Host, tmp_path: Path) -> None:
    shared, shown_only, single = tmp_path / "rw", tmp_path / "ro", tmp_path / "file"
    shared.mkdir()
    shown_only.mkdir()
    single.write_text("content\n")
    script = (
        "echo data > /mnt/rw/new && ls -ln /mnt/rw/new; echo x > /mnt/ro/new || echo ro refused;"
        "mount -o remount,bind,rw /mnt/ro || echo remount refused; echo x > /mnt/ro/new || echo ro refused again;"
        "umount /mnt/ro; cat /deep/er/file; grep -c ' /scratch tmpfs' /proc/mounts"
    )
    mounts = (
        Mount(source=str(shared), target="mnt/rw", shift=True, create="dir"),
        Mount(source=str(shown_only), target="/mnt/ro", shift=True, create="dir", options=("ro",)),
        Mount(source=str(single), target="/deep/er/file", create="file"),
        Mount(source="none", target="/scratch", fstype="tmpfs", create="dir", options=("size=1M", "nosuid")),
        Mount(source="/no/such/thing", target="/optional", create="dir", optional=True),
    )
    shown = host.run(busybox_tree(tmp_path / "tree", script), mounts=mounts)
    for line in ("ro refused", "remount refused", "ro refused again", "content", "1"):
        assert line in shown.splitlines(), shown
    assert (shared / "new").stat().st_uid == 0
    assert list(shown_only.iterdir()) == []


def test_nothing_mounted_inside_reaches_a_shared_mount_of_the_host(host: Host, tmp_path: Path) -> None:
    tree, shared = tmp_path / "tree", tmp_path / "shared"
    busybox_tree(tree, "mount -t tmpfs none /mnt && mount -t tmpfs none /data/inner && echo mounted")
    (shared / "inner").mkdir(parents=True)
    for path in (tree, shared):
        subprocess.run(["mount", "--bind", path, path], check=True)
        subprocess.run(["mount", "--make-shared", path], check=True)
    try:
        before = Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
        mounts = (Mount(source=str(shared), target="/data", shift=True, create="dir"),)
        assert "mounted" in host.run(tree, mounts=mounts).splitlines()
        assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == before
        host.start(tree, "c2", idmap=None)
        host.console("c2", "ready")
        assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == before
    finally:
        for path in (tree, shared):
            subprocess.run(["umount", "--lazy", path], check=True)


def test_devices(host: Host, tmp_path: Path) -> None:
    node = DeviceNode(source="/dev/zero", path="/dev/own/zero", kind="char", major=1, minor=5)
    shown = host.run(busybox_tree(tmp_path / "tree", "head -c 3 /dev/own/zero && echo read"), devices=(node,))
    assert "read" in shown


def test_limits(host: Host, tmp_path: Path) -> None:
    limits = Limits(memory=64 << 20, processes=12, cpu_quota=20000, cpu_period=100000, cpus="0")
    script = "i=0; while [ $i -lt 20 ]; do sleep 60 & i=$((i+1)); done; echo not reached"
    tree = busybox_tree(tmp_path / "tree", "echo start")
    (tree / "etc/inittab").write_text("::sysinit:/bin/sh /script\n::once:/bin/sh /forks\n::respawn:/bin/sleep 9999\n")
    (tree / "forks").write_text(script)
    host.run(tree, limits=limits)
    shown = host.console("c1", "can't fork: Resource temporarily unavailable")
    assert "not reached" not in shown
    assert host.runtime.stats("c1").processes in (11, 12)  # the shell may have ended by now
    host.runtime.set_limits("c1", Limits(processes=50))
    group = cgroup.open_cgroup(_cgroup(host))
    files = [f"{path}/pids.max" for path in (group.path, *group.v1_paths) if os.path.exists(f"{path}/pids.max")]
    assert [Path(file).read_text() for file in files] == ["50\n"]


def test_rlimits(host: Host, tmp_path: Path) -> None:
    host.run(busybox_tree(tmp_path / "tree"), confinement=Confinement(rlimits=(("nofile", 123, 456),)))
    pid = host.runtime.get("c1").pid  # type: ignore[union-attr]
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (123, 456)


def test_another_user_as_init(host: Host, tmp_path: Path) -> None:
    shown = ""
    tree = busybox_tree(tmp_path / "tree")
    host.start(tree, init=("/bin/sh", "-c", "id; echo ready; sleep 1000"), init_user=7, init_group=8)
    shown = host.console("c1", "ready")
    assert "uid=7 gid=8" in shown


def test_nesting_shows_whole_file_systems(host: Host, tmp_path: Path) -> None:
    shown = host.run(busybox_tree(tmp_path / "tree", "grep /dev/.lxc /proc/mounts"), nesting=True)
    assert "/dev/.lxc/proc proc" in shown
    assert "/dev/.lxc/sys sysfs" in shown


def test_device_rules_of_cgroup_v2(tmp_path: Path) -> None:
    """The program for unified hosts, attached to a v2 group (it works on the hybrid layout, too)."""
    group = cgroup.open_cgroup(f"device-test.{os.getpid()}")
    group.create()
    try:
        bpf.restrict_devices(group.path, ["c *:* m", "c 1:3 rwm", "c 1:5 r"])
        pid = os.fork()
        if pid == 0:
            with open(f"{group.path}/cgroup.procs", "w") as file:
                file.write("0")
            os._exit(_device_checks(tmp_path))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        group.kill()
        group.remove()


def _device_checks(scratch: Path) -> int:
    """Return 0 when exactly what is allowed works."""
    try:
        for path, flags, allowed in (
            ("/dev/null", os.O_RDWR, True),
            ("/dev/zero", os.O_RDONLY, True),
            ("/dev/zero", os.O_WRONLY, False),
            ("/dev/full", os.O_RDONLY, False),
        ):
            try:
                os.open(path, flags)
            except PermissionError:
                if allowed:
                    return 1
            else:
                if not allowed:
                    return 2
        os.mknod(scratch / "node", 0o600 | 0o020000, os.makedev(200, 1))
        try:
            os.mknod(scratch / "block", 0o600 | 0o060000, os.makedev(200, 1))
        except PermissionError:
            return 0
    except OSError:
        return 3
    return 4


def _cgroup(host: Host) -> str:
    (name,) = {path.name for path in Path("/sys/fs/cgroup").glob("**/pylxc/c1.*")} & {_name(host)}
    return name


def _name(host: Host) -> str:
    from pylxc.runtime.container import cgroup_name

    return cgroup_name("c1", host.paths.instance_run("c1"))
