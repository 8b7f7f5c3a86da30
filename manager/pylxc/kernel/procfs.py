"""Facts from /proc, parsed."""

from __future__ import annotations

import os
import re


def boot_id() -> str:
    """Return the id of this boot of the host."""
    return read("/proc/sys/kernel/random/boot_id").strip()


def in_user_namespace() -> bool:
    """Return whether this process runs in a user namespace other than the host's."""
    return read("/proc/self/uid_map").split() != ["0", "0", "4294967295"]


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot: with the pid it names a process for good.

    Raises:
        FileNotFoundError: there is no such process.
    """
    return int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])


def status(pid: int | str) -> dict[str, str]:
    """Return /proc/PID/status as name -> text."""
    rows = (line.partition(":") for line in read(f"/proc/{pid}/status").splitlines())
    return {name: value.strip() for name, _, value in rows}


def handles_signal(pid: int, number: int) -> bool:
    """Return whether the process blocks or catches a signal."""
    fields = status(pid)
    bit = 1 << (number - 1)
    return bool((int(fields["SigBlk"], 16) | int(fields["SigCgt"], 16)) & bit)


def unescape(text: str) -> str:
    r"""Undo mountinfo's octal escapes (`\040` for a space)."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


class MountInfo:
    """One line of mountinfo. See: proc_pid_mountinfo(5)."""

    __slots__ = ("fstype", "id", "options", "root", "source", "super_options", "target")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.id = int(fields[0])
        self.root = unescape(fields[3])
        self.target = unescape(fields[4])
        self.options = fields[5].split(",")
        fstype, source, options = right.split(" ")[:3]
        self.fstype = fstype
        self.source = unescape(source)
        self.super_options = options.strip().split(",")


def mounts(pid: int | str = "self") -> list[MountInfo]:
    """Return the mount table that a process sees, in mount order."""
    return [MountInfo(line) for line in read(f"/proc/{pid}/mountinfo").splitlines()]


def mount_of(path: str) -> MountInfo:
    """Return the mount that a path lies on.

    Raises:
        OSError: it cannot be opened.
        LookupError: the mount is out of this process's sight.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rows = (line.partition(":") for line in read(f"/proc/self/fdinfo/{fd}").splitlines())
        wanted = next(int(value) for name, _, value in rows if name == "mnt_id")
    finally:
        os.close(fd)
    for mount in mounts():
        if mount.id == wanted:
            return mount
    raise LookupError(f"{path} lies on a mount that cannot be seen")


def read(path: str) -> str:
    """Return the text of a file that the kernel makes up; raises OSError. A third of the system calls of `open`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode(errors="surrogateescape")
