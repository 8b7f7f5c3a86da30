"""Wrappers that need no privilege."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pylxc.errors import Unavailable
from pylxc.kernel import caps, command, fds, openat2, pidfd, procfs, seccomp
from pylxc.kernel.libc import syscall


def test_errors_name_the_call_and_the_path() -> None:
    with pytest.raises(FileNotFoundError, match=r"open_tree: .*'/nowhere'"):
        syscall("open_tree", -100, "/nowhere", 0, path="/nowhere")


def test_names_and_numbers_of_capabilities() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert caps.number("chown") == 0
    assert caps.number("sys_admin") == 21
    assert len(caps.NAMES) - 1 >= last or last > 40
    assert caps.number("checkpoint_restore") == 40


def test_resolution_stays_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/name").write_text("mine")
    (tmp_path / "absolute").symlink_to("/etc/name")
    (tmp_path / "up").symlink_to("../../../../../../etc/name")
    (tmp_path / "magic").symlink_to("/proc/self/fd/0")
    root = os.open(tmp_path, os.O_PATH)
    try:
        for name in ("absolute", "up", "/../../etc/name"):
            fd = openat2.openat2(root, name, os.O_RDONLY)
            assert os.read(fd, 10) == b"mine"
            os.close(fd)
        with pytest.raises(OSError, match="openat2"):
            openat2.openat2(root, "magic", os.O_RDONLY)
        os.close(openat2.make_path(root, "/../new/deep/file", "file"))
        assert (tmp_path / "new/deep/file").is_file()
    finally:
        os.close(root)


def test_descriptors_travel() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        read, write = os.pipe()
        fds.send(ours, b"x", [read, write])
        data, received = fds.receive(theirs, 10, 5)
        assert data == b"x"
        assert len(received) == 2
        assert not any(os.get_inheritable(fd) for fd in received)
        os.write(received[1], b"through")
        assert os.read(read, 10) == b"through"
        fds.close([read, write, *received])
        fds.send(ours, b"longer than that")
        with pytest.raises(OSError, match="longer"):
            fds.receive(theirs, 4)


def test_a_process_by_its_descriptor() -> None:
    pid = os.fork()
    if pid == 0:
        os.read(os.pipe()[0], 1)
    fd = pidfd.open_pid(pid)
    assert not pidfd.wait(fd, 0)
    assert procfs.start_time(pid) > 0
    assert pidfd.send_signal(fd, 9)
    assert pidfd.wait(fd, 5)
    os.waitpid(pid, 0)
    assert not pidfd.send_signal(fd, 9)
    os.close(fd)


def test_mount_table_lines() -> None:
    line = r"36 35 98:0 /mnt1 /my\040dir rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    info = procfs.MountInfo(line)
    assert (info.target, info.fstype, info.options) == ("/my dir", "ext3", ["rw", "noatime"])


def test_seccomp_policies_compile() -> None:
    rules: list[seccomp.Rule] = [("kexec_load", "errno:38", ()), ("no_such_syscall", "errno:38", ())]
    rules.append(("mknod", "kill", ((1, "&=", 0x2000, 0xF000), (2, ">=", 7, 0))))
    assert len(seccomp.compile_filter(rules, "allow")) % 8 == 0
    assert seccomp.compile_filter([("read", "allow", ())], "errno:1") != seccomp.compile_filter([], "errno:1")
    assert seccomp.compile_filter([], "allow") != seccomp.compile_filter([], "allow", compatible=False)
    with pytest.raises(Exception, match="Invalid seccomp action"):
        seccomp.compile_filter([("read", "explode", ())], "allow")


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.PACKAGES, "no-such-program", "its-package")
    with pytest.raises(Unavailable, match="apt-get install its-package"):
        command.run(["no-such-program"])


def test_commands() -> None:
    assert command.run(["cat"], input="text").stdout == b"text"
    assert command.run(["false"], check=False).returncode == 1
    with pytest.raises(command.CommandFailed, match="sh: went wrong") as caught:
        command.run(["sh", "-c", "echo went wrong >&2; exit 3"])
    assert caught.value.returncode == 3
    with pytest.raises(command.CommandFailed, match=r"longer than 0\.1 s"):
        command.run(["sleep", "10"], timeout=0.1)
