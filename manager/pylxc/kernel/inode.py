"""Inode flags that `chattr` shows, and data that files share."""

from __future__ import annotations

import array
import fcntl
import os

# See: ioctl_iflags(2), linux/fs.h
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FICLONE = 0x40049409
TOPDIR = 0x00020000


def add_flags(path: str, flags: int) -> None:
    """Add inode flags to a directory or file.

    Raises:
        OSError: ENOTTY, EOPNOTSUPP or EINVAL where the file system does not know them. See: ioctl_iflags(2)
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        held = array.array("i", [0])
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, held)
        held[0] |= flags
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, held)
    finally:
        os.close(fd)


def share(source_fd: int, target_fd: int) -> None:
    """Make a file's content another one's without copying it.

    Raises:
        OSError: EOPNOTSUPP or EINVAL where the file system cannot. See: ioctl_ficlone(2)
    """
    fcntl.ioctl(target_fd, _FICLONE, source_fd)
