"""Quotas of btrfs: an account of what each subvolume refers to, and a limit. See: linux/btrfs.h, btrfs-quota(8).

Every subvolume has a group 0/ID, which comes with it once quotas are enabled. A snapshot begins with its source's
account and its source's limit. The account follows writes with the next transaction, within half a minute.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterable

from pylxc.kernel import libc
from pylxc.kernel.btrfs import opened, subvolume_id, sync

# _IOW and _IOWR of magic 0x94.
_TREE_SEARCH_V2 = 0xC0709411
_QUOTA_CTL = 0xC0109428
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B
_QUOTA_RESCAN_WAIT = 0x942E

_ENABLE = 1
_REMOVE = 0
_MAX_RFER = 1 << 0
_QUOTA_TREE = 8
_INFO_KEY, _LIMIT_KEY = 242, 244
_NONE = (1 << 64) - 1

_SEARCH = struct.Struct("=7Q4L4QQ")
_SEARCH_HEADER = struct.Struct("=QQQLL")
_SEARCH_BUFFER = 4096

_OFF = (errno.ENOTCONN, errno.ENOENT)


def enable(path: str) -> None:
    """Have the file system that `path` is on keep accounts, and wait until they are true; once more is no error.

    Raises:
        OSError: EROFS, ENOSPC.
    """
    with opened(path) as fd:
        fcntl.ioctl(fd, _QUOTA_CTL, bytearray(struct.pack("=QQ", _ENABLE, 0)))
        fcntl.ioctl(fd, _QUOTA_RESCAN_WAIT)


def set_limit(path: str, size: int) -> None:
    """Let a subvolume refer to at most `size` bytes, 0 for no limit; that there is none is no error without quotas.

    Raises:
        OSError: the ioctl failed otherwise.
    """
    with opened(path) as fd:
        args = struct.pack("=6Q", subvolume_id(fd), _MAX_RFER, size or _NONE, 0, 0, 0)
        try:
            fcntl.ioctl(fd, _QGROUP_LIMIT, bytearray(args))
        except OSError as error:
            if size or error.errno not in _OFF:
                raise OSError(error.errno, error.strerror, path) from None


def limit(path: str) -> int:
    """Return the bytes that a subvolume may refer to, 0 for no limit.

    Raises:
        OSError: the ioctl failed.
    """
    found = _find(path, _LIMIT_KEY)
    flags, most = struct.unpack_from("=QQ", found) if found else (0, 0)
    return int(most) if flags & _MAX_RFER and most != _NONE else 0


def usage(path: str, *, exact: bool = False) -> int | None:
    """Return the bytes that a subvolume refers to, shared ones included; None without quotas.

    Args:
        path: the subvolume.
        exact: write out what waits in memory first.

    Raises:
        OSError: an ioctl failed.
    """
    if exact:
        sync(path)
    found = _find(path, _INFO_KEY)
    return int(struct.unpack_from("=QQ", found)[1]) if found else None


def remove(path: str, subvolumes: Iterable[int]) -> None:
    """Remove the groups of deleted subvolumes, by id, from the file system that `path` is on.

    Newer kernels do so themselves when the last block of a subvolume is free, and refuse it before.

    Raises:
        OSError: the ioctl failed otherwise.
    """
    with opened(path) as fd:
        for subvolume in subvolumes:
            try:
                fcntl.ioctl(fd, _QGROUP_CREATE, bytearray(struct.pack("=QQ", _REMOVE, subvolume)))
            except OSError as error:
                if error.errno in (errno.ENOTCONN, errno.EINVAL):
                    return  # no quotas
                if error.errno not in (errno.EBUSY, errno.ENOENT):
                    raise OSError(error.errno, error.strerror, path) from None


def _find(path: str, kind: int) -> bytes:
    """Return the item of a kind that the quota tree has of a subvolume, b"" for none."""
    with opened(path) as fd:
        subvolume = subvolume_id(fd)
        key = (_QUOTA_TREE, 0, 0, subvolume, subvolume, 0, _NONE)
        buffer = bytearray(_SEARCH.pack(*key, kind, kind, 1, 0, 0, 0, 0, 0, _SEARCH_BUFFER) + bytes(_SEARCH_BUFFER))
        try:
            libc.ioctl(fd, _TREE_SEARCH_V2, buffer)
        except FileNotFoundError:
            return b""  # there is no quota tree
    if not struct.unpack_from("=L", buffer, 64)[0]:
        return b""
    return bytes(buffer[_SEARCH.size + _SEARCH_HEADER.size :])
