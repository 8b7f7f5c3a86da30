"""Btrfs subvolumes by ioctl: make, snapshot, destroy, list what is nested. See: linux/btrfs.h, ioctl_btrfs.

A subvolume is a directory with inode 256 that can be snapshotted as a whole. Paths given here are the caller's own;
what lies inside a subvolume is not trusted and reached by `openat2` only.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from pylxc.kernel import libc
from pylxc.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

FIRST_INODE = 256

# _IOW, _IOR and _IOWR of magic 0x94.
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_CREATE_V2 = 0x50009418
_SNAP_DESTROY_V2 = 0x5000943F
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_RESIZE = 0x50009403
_SYNC = 0x9408
_INO_LOOKUP = 0xD0009412
_GET_SUBVOL_ROOTREF = 0xD000943D
_INO_LOOKUP_USER = 0xD000943E
_GET_SUBVOL_INFO = 0x81F8943C

_SUBVOL_RDONLY = 1 << 1

_ARGS_V2 = struct.Struct("=qQQ4Q4040s")
_VOL_ARGS = struct.Struct("=q4088s")
_ROOTREFS = 255
_USER_LOOKUP = struct.Struct("=QQ256s3824s")
_INFO = struct.Struct("=Q256sQQ224s")
# struct file_handle, and in it struct btrfs_fid without a parent. See: linux/exportfs.h
_HANDLE = struct.Struct("=IiQQI")
_HANDLE_BYTES, _HANDLE_TYPE = 20, 0x4D


def is_btrfs(path: str) -> bool:
    """Tell whether a directory is on btrfs.

    Raises:
        OSError: it cannot be opened.
    """
    with opened(path) as fd:
        try:
            subvolume_id(fd)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return False
    return True


def is_subvolume(path: str) -> bool:
    """Tell whether a path, not followed, is the root of a subvolume."""
    return os.lstat(path).st_ino == FIRST_INODE and os.path.isdir(path) and is_btrfs(path)


def create(path: str) -> None:
    """Make an empty subvolume, of mode 0755 less the umask.

    Raises:
        OSError: as mkdir(2); ENOTTY when the file system is another one.
    """
    with _parent(path) as (parent_fd, name):
        _ioctl(parent_fd, _SUBVOL_CREATE_V2, _args(name=name), path)


def snapshot(source: str, path: str, *, nested: bool = True) -> None:
    """Make a writable snapshot of a subvolume, `nested` with the subvolumes that are nested in it.

    Each subvolume is copied at one moment of its own. What appears or goes in `source` meanwhile may be missing.

    Raises:
        OSError: EEXIST, ENOSPC; EINVAL when `source` is no subvolume. A part of the snapshot may be there.
    """
    with opened(source) as source_fd, _parent(path) as (parent_fd, name):
        _ioctl(parent_fd, _SNAP_CREATE_V2, _args(fd=source_fd, name=name), path)
        if nested:
            with opened(path) as copy_fd:
                _snapshot_nested(source_fd, copy_fd)


def _snapshot_nested(source_fd: int, copy_fd: int) -> None:
    for nested in _list_nested(source_fd):
        directory, name = os.path.split(nested)
        try:
            child_fd = _open_inside(source_fd, nested)
        except OSError:
            continue  # gone meanwhile
        try:
            # An empty directory stands for it in the snapshot: inode 2, which cannot be written to.
            parent_fd = _open_inside(copy_fd, directory or b".")
            try:
                times = os.stat(parent_fd)
                os.rmdir(name, dir_fd=parent_fd)
                _ioctl(parent_fd, _SNAP_CREATE_V2, _args(fd=child_fd, name=name), os.fsdecode(nested))
                os.utime(parent_fd, ns=(times.st_atime_ns, times.st_mtime_ns))
                grandchild_fd = _open_inside(parent_fd, name)
                try:
                    _snapshot_nested(child_fd, grandchild_fd)
                finally:
                    os.close(grandchild_fd)
            finally:
                os.close(parent_fd)
        finally:
            os.close(child_fd)


def _list_nested(fd: int) -> list[bytes]:
    """Return the paths in a subvolume of those right below it; theirs are to be asked of them.

    Raises:
        OSError: ENOTTY when it is no btrfs. See: BTRFS_IOC_GET_SUBVOL_ROOTREF
    """
    found: list[bytes] = []
    for tree, directory in _references(fd):
        lookup = bytearray(_USER_LOOKUP.pack(directory, tree, b"", b""))
        try:
            libc.ioctl(fd, _INO_LOOKUP_USER, lookup)
        except FileNotFoundError:
            continue  # deleted meanwhile
        _, _, name, path = _USER_LOOKUP.unpack(lookup)
        # Behind the first zero byte of either lies what the kernel needed to make it.
        found.append(path.partition(b"\0")[0] + name.partition(b"\0")[0])
    return found


def _references(fd: int) -> Iterator[tuple[int, int]]:
    """Yield the ids of the subvolumes right below one, and the number of the directory in it that each is in."""
    first = 0
    while True:
        buffer = bytearray(4096)
        struct.pack_into("=Q", buffer, 0, first)
        more = False
        try:
            libc.ioctl(fd, _GET_SUBVOL_ROOTREF, buffer)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
            more = True
        count = _ROOTREFS if more else buffer[8 + 16 * _ROOTREFS]
        for index in range(count):
            tree, directory = struct.unpack_from("=QQ", buffer, 8 + 16 * index)
            first = tree + 1
            yield tree, directory
        if not more:
            return


def nested_paths(path: str) -> list[str]:
    """Return the paths, relative to a subvolume, of all that are nested in it, each before what is nested in that.

    Raises:
        OSError: ENOTTY when it is no btrfs.
    """
    with opened(path) as fd:
        return sorted(os.fsdecode(found) for found in _nested_paths(fd))


def _nested_paths(fd: int) -> Iterator[bytes]:
    for nested in _list_nested(fd):
        yield nested
        child_fd = _open_inside(fd, nested)
        try:
            yield from (nested + b"/" + inner for inner in _nested_paths(child_fd))
        finally:
            os.close(child_fd)


def destroy(path: str) -> list[int]:
    """Remove a subvolume with all that are nested in it and return their ids; blocks are freed in the background.

    Raises:
        OSError: ENOENT; EINVAL when it is no subvolume.
    """
    with opened(path) as fd:
        gone = [subvolume_id(fd)]
        _destroy_nested(fd, gone)
    with _parent(path) as (parent_fd, name):
        _ioctl(parent_fd, _SNAP_DESTROY_V2, _args(name=name), path)
    return gone


def _destroy_nested(fd: int, gone: list[int]) -> None:
    # Not by their paths: whoever has made them may have made these too long for any system call.
    found = list(_references(fd))
    if found:
        _set_readonly(fd, False)
    for child, directory in found:
        child_fd = _open_inode(fd, child, FIRST_INODE)
        try:
            _destroy_nested(child_fd, gone)
            info = bytearray(_INFO.size)
            libc.ioctl(child_fd, _GET_SUBVOL_INFO, info)
        finally:
            os.close(child_fd)
        name = _INFO.unpack(info)[1].partition(b"\0")[0]
        directory_fd = _open_inode(fd, subvolume_id(fd), directory)
        try:
            _ioctl(directory_fd, _SNAP_DESTROY_V2, _args(name=name), os.fsdecode(name))
        finally:
            os.close(directory_fd)
        gone.append(child)


def _open_inode(fd: int, subvolume: int, number: int) -> int:
    """Return a descriptor of a directory of the file system that `fd` is on, by its number in a subvolume."""
    handle = _HANDLE.pack(_HANDLE_BYTES, _HANDLE_TYPE, number, subvolume, 0)
    return libc.syscall("open_by_handle_at", fd, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def set_readonly(path: str, readonly: bool) -> None:
    """Make a subvolume read-only or writable; those nested in it stay as they are.

    Raises:
        OSError: EINVAL when it is no subvolume.
    """
    with opened(path) as fd:
        _set_readonly(fd, readonly)


def _set_readonly(fd: int, readonly: bool) -> None:
    flags = array.array("Q", [0])
    fcntl.ioctl(fd, _SUBVOL_GETFLAGS, flags)
    wanted = flags[0] | _SUBVOL_RDONLY if readonly else flags[0] & ~_SUBVOL_RDONLY
    if wanted != flags[0]:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, array.array("Q", [wanted]))


def grow(path: str) -> None:
    """Make the file system that `path` is on as large as its device.

    Raises:
        OSError: EROFS, EBUSY when another change of its devices goes on.
    """
    with opened(path) as fd:
        _ioctl(fd, _RESIZE, bytearray(_VOL_ARGS.pack(0, b"max")), path)


def sync(path: str) -> None:
    """Write everything to the disk, and bring the accounts of the file system up to date with that.

    Raises:
        OSError: an I/O error.
    """
    with opened(path) as fd:
        fcntl.ioctl(fd, _SYNC)


def subvolume_id(fd: int) -> int:
    """Return the id of the subvolume that a file or directory is in.

    Raises:
        OSError: ENOTTY when it is no btrfs.
    """
    buffer = bytearray(struct.pack("=QQ4080s", 0, FIRST_INODE, b""))
    libc.ioctl(fd, _INO_LOOKUP, buffer)
    return int(struct.unpack_from("=Q", buffer)[0])


def _args(*, fd: int = 0, name: bytes) -> bytearray:
    if len(name) > 255:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return bytearray(_ARGS_V2.pack(fd, 0, 0, 0, 0, 0, 0, name))


def _ioctl(fd: int, request: int, args: bytearray, path: str) -> None:
    try:
        libc.ioctl(fd, request, args)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _open_inside(root_fd: int, path: bytes) -> int:
    return openat2(root_fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Give a descriptor of a directory that is no symbolic link."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _parent(path: str) -> Iterator[tuple[int, bytes]]:
    directory, name = os.path.split(os.fsencode(path.rstrip("/")))
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd, name
    finally:
        os.close(fd)
