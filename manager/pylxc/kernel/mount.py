"""Mounts as file descriptors (open_tree, fsopen, move_mount, mount_setattr), pivot_root, umount.

A mount is first made detached, as a descriptor, then attached to a target that is a descriptor too: no path is
resolved twice. Every returned descriptor is close-on-exec and the caller's to close.
"""

from __future__ import annotations

import ctypes
import os

from pylxc.kernel.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, syscall

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

# See: linux/mount.h
ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR__ATIME = 0x70
ATTR_NODIRATIME = 0x80
ATTR_IDMAP = 0x100000
ATTR_NOSYMFOLLOW = 0x200000

_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSCONFIG_CMD_RECONFIGURE = 7
_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40


class _MountAttr(ctypes.Structure):
    """struct mount_attr. See: linux/mount.h."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def open_tree(path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = False, follow: bool = True) -> int:
    """Return a descriptor of a detached copy of the mount that `path` is in, with `path` as its root.

    Args:
        path: file or directory; empty means `dir_fd` itself.
        dir_fd: where a relative `path` starts.
        recursive: copy the mounts below too.
        follow: follow `path` when it is a symbolic link.

    Raises:
        OSError: see open_tree(2).
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    flags |= AT_RECURSIVE if recursive else 0
    flags |= 0 if follow else 0x100
    flags |= 0 if path else AT_EMPTY_PATH
    return syscall("open_tree", dir_fd, path, flags, path=path)


def set_attributes(
    mount_fd: int, *, add: int = 0, clear: int = 0, recursive: bool = False, propagation: int = 0
) -> None:
    """Set and clear `ATTR_*` of a mount; one that touches access time must clear `ATTR__ATIME` as well.

    `propagation` is MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, 0 leaves it.

    Raises:
        OSError: see mount_setattr(2).
    """
    _setattr(mount_fd, _MountAttr(add, clear, propagation, 0), recursive)


def set_idmap(mount_fd: int, userns_fd: int, *, recursive: bool = False) -> None:
    """Map the owners of files in a detached mount by the maps of a user namespace.

    Raises:
        OSError: EINVAL when the file system cannot (or the mount is attached or mapped), see mount_setattr(2).
    """
    _setattr(mount_fd, _MountAttr(ATTR_IDMAP, 0, 0, userns_fd), recursive)


def _setattr(mount_fd: int, attr: _MountAttr, recursive: bool) -> None:
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", mount_fd, "", flags, attr, ctypes.sizeof(attr))


def is_known(fstype: str) -> bool:
    """Tell whether the kernel has a file system, by the name it has there; loads its module when there is one."""
    try:
        os.close(syscall("fsopen", fstype, _FSOPEN_CLOEXEC, path=fstype))
    except OSError:
        return False
    return True


def new(fstype: str, options: tuple[tuple[str, str], ...] = (), *, attributes: int = 0, source: str = "") -> int:
    """Return a descriptor of a new detached mount of a file system.

    Args:
        fstype: the kernel's name of it.
        options: (name, value) pairs; an empty value is a flag.
        attributes: `ATTR_*` of the mount.
        source: what the mount table shows as its source, or the device; `fstype` when empty.

    Raises:
        OSError: see mount(2); the path is `fstype`.
    """
    fs_fd = syscall("fsopen", fstype, _FSOPEN_CLOEXEC, path=fstype)
    try:
        syscall("fsconfig", fs_fd, _FSCONFIG_SET_STRING, "source", source or fstype, 0, path=fstype)
        _set_options(fs_fd, options, fstype)
        syscall("fsconfig", fs_fd, _FSCONFIG_CMD_CREATE, None, None, 0, path=fstype)
        return syscall("fsmount", fs_fd, _FSMOUNT_CLOEXEC, attributes, path=fstype)
    finally:
        os.close(fs_fd)


def reconfigure(path: str, options: tuple[tuple[str, str], ...], *, dir_fd: int = AT_FDCWD) -> None:
    """Change options of the file system that is mounted at `path`; those that are not named stay.

    An empty `path` means `dir_fd` itself, which may be O_PATH.

    Raises:
        OSError: EINVAL when it refuses one, see mount(2).
    """
    flags = _FSPICK_CLOEXEC | (0 if path else _FSPICK_EMPTY_PATH)
    fs_fd = syscall("fspick", dir_fd, path, flags, path=path)
    try:
        _set_options(fs_fd, options, path)
        syscall("fsconfig", fs_fd, _FSCONFIG_CMD_RECONFIGURE, None, None, 0, path=path)
    finally:
        os.close(fs_fd)


def _set_options(fs_fd: int, options: tuple[tuple[str, str], ...], path: str) -> None:
    for name, value in options:
        if value:
            syscall("fsconfig", fs_fd, _FSCONFIG_SET_STRING, name, value, 0, path=path)
        else:
            syscall("fsconfig", fs_fd, _FSCONFIG_SET_FLAG, name, None, 0, path=path)


def attach(mount_fd: int, target_fd: int, *, path: str | None = None) -> None:
    """Attach a detached mount on the file or directory that `target_fd` (may be O_PATH) is.

    Args:
        mount_fd: from `open_tree` or `new`; stays valid and names the mounted root afterwards.
        target_fd: the mount point.
        path: what an error names.

    Raises:
        OSError: see move_mount(2).
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", mount_fd, "", target_fd, "", flags, path=path)


def attach_at(mount_fd: int, target: str) -> None:
    """Attach a detached mount at a path that the caller trusts.

    Raises:
        OSError: see move_mount(2).
    """
    syscall("move_mount", mount_fd, "", AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH, path=target)


def set_propagation(path: str, flags: int) -> None:
    """Set the propagation of the mount at `path`: MS_PRIVATE, with MS_REC for all below.

    Raises:
        OSError: see mount(2).
    """
    syscall("mount", None, path, None, flags, None, path=path)


def pivot_root(new_root: str, put_old: str) -> None:
    """Replace the root of the mount namespace; both paths may be `.`, see its man page in section 2."""
    syscall("pivot_root", new_root, put_old, path=new_root)


def unmount(path: str, flags: int = MNT_DETACH) -> None:
    """Unmount `path`, lazily unless told otherwise; a symbolic link is not followed.

    Raises:
        OSError: see umount2(2).
    """
    syscall("umount2", path, flags | UMOUNT_NOFOLLOW, path=path)
