"""Project quotas of ext4 and xfs: an account of every file that bears a project's id, and a limit of it.

A directory with the flag PROJINHERIT gives its id to what is made in it, and `statfs` below it tells of the project's
room in place of the file system's. See: quotactl(2), ioctl_xfs_fsgetxattr(2), linux/quota.h, linux/dqblk_xfs.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from dataclasses import dataclass

from pylxc.kernel.libc import syscall

_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_XATTR = struct.Struct("=5I8s")
_PROJINHERIT = 0x200

_PROJECTS = 2
_GETQUOTA = 0x800007 << 8 | _PROJECTS
_SETQUOTA = 0x800008 << 8 | _PROJECTS
_XGETQSTATV = 0x5808 << 8 | _PROJECTS
_VERSION = 1
_ACCOUNTED, _ENFORCED = 1 << 4, 1 << 5
_LIMITS = 1
_BLOCK = 1024


class _Block(ctypes.Structure):
    """struct if_dqblk."""

    _fields_ = [
        ("hard", ctypes.c_uint64),
        ("soft", ctypes.c_uint64),
        ("space", ctypes.c_uint64),
        ("inodes_hard", ctypes.c_uint64),
        ("inodes_soft", ctypes.c_uint64),
        ("inodes", ctypes.c_uint64),
        ("time", ctypes.c_uint64),
        ("inodes_time", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    ]


@dataclass(frozen=True, slots=True)
class Account:
    """What a project's files take, and the most that they may, 0 for no limit; bytes."""

    used: int
    limit: int


def is_accounted(fd: int) -> bool:
    """Tell whether the file system of a file keeps accounts of projects."""
    return bool(_state(fd) & _ACCOUNTED)


def is_enforced(fd: int) -> bool:
    """Tell whether the file system of a file holds projects to their limits."""
    return bool(_state(fd) & _ENFORCED)


def _state(fd: int) -> int:
    # struct fs_quota_statv: version, padding, flags, ...
    buffer = ctypes.create_string_buffer(bytes([_VERSION]), 256)
    try:
        syscall("quotactl_fd", fd, _XGETQSTATV, 0, buffer)
    except OSError:  # the file system knows no quotas, or they are off
        return 0
    return int(struct.unpack_from("=H", buffer.raw, 2)[0])


def account(fd: int, project: int) -> Account:
    """Return a project's account on the file system of a file; one that is not known there has nothing.

    Raises:
        OSError: ESRCH when quotas are off.
    """
    block = _Block()
    try:
        syscall("quotactl_fd", fd, _GETQUOTA, project, block)
    except FileNotFoundError:
        return Account(0, 0)
    return Account(int(block.space), int(block.hard) * _BLOCK)


def set_limit(fd: int, project: int, size: int) -> None:
    """Let a project's files take at most `size` bytes, 0 for no limit.

    Raises:
        OSError: ESRCH when quotas are off, EROFS.
    """
    blocks = -(-size // _BLOCK)
    syscall("quotactl_fd", fd, _SETQUOTA, project, _Block(hard=blocks, soft=blocks, valid=_LIMITS))


def project(fd: int) -> int:
    """Return the id of the project that a file is in, 0 for none; also where the file system knows no projects."""
    buffer = bytearray(_XATTR.size)
    try:
        fcntl.ioctl(fd, _FSGETXATTR, buffer)
    except OSError:
        return 0
    return int(_XATTR.unpack(buffer)[3])


def set_project(fd: int, number: int) -> None:
    """Put a file into a project, 0 for none; what is made in a directory will be in it too.

    Raises:
        OSError: the file system knows no projects.
    """
    buffer = bytearray(_XATTR.size)
    fcntl.ioctl(fd, _FSGETXATTR, buffer)
    flags, extent, extents, _, copied, rest = _XATTR.unpack(buffer)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        flags = flags | _PROJINHERIT if number else flags & ~_PROJINHERIT
    fcntl.ioctl(fd, _FSSETXATTR, bytearray(_XATTR.pack(flags, extent, extents, number, copied, rest)))


def set_tree(path: str, number: int) -> None:
    """Put the directories and files of a tree into a project, its root last; what lies in it is not trusted.

    Links, sockets and device nodes have no data to speak of, and stay out.

    Raises:
        OSError: the file system knows no projects.
    """
    for directory, _, names, fd in os.fwalk(path, follow_symlinks=False):
        if directory != path:
            set_project(fd, number)
        for name in names:
            try:
                entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                continue  # gone meanwhile
            try:
                if stat.S_ISREG(os.fstat(entry).st_mode):
                    # Through /proc it is the file that was looked at, whatever bears its name by now.
                    _set_path(f"/proc/self/fd/{entry}", number)
            finally:
                os.close(entry)
    _set_path(path, number)


def _set_path(path: str, number: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_project(fd, number)
    finally:
        os.close(fd)
