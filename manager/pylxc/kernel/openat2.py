"""Open files below a directory that belongs to somebody else: nothing in it leads outside."""

from __future__ import annotations

import ctypes
import os

from pylxc.kernel.libc import syscall

# See: linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_NO_SYMLINKS = 0x4
RESOLVE_BENEATH = 0x8
RESOLVE_IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    """struct open_how. See: linux/openat2.h."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open `path` (close-on-exec); by default `dir_fd` is the root that absolute names and `..` stay in.

    Magic links (/proc/PID/fd/N) are refused always.

    Raises:
        OSError: EXDEV or ELOOP when the resolution is refused, see openat2(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    return syscall("openat2", dir_fd, path, how, ctypes.sizeof(how), path=os.fsdecode(path))


def make_path(root_fd: int, path: str, kind: str, *, mode: int = 0o755) -> int:
    """Return an O_PATH descriptor of `path` inside `root_fd`, made with its parents when it is missing.

    Args:
        root_fd: directory whose tree is not trusted.
        path: names inside; symbolic links are followed inside.
        kind: "dir", "file" or "" (nothing is made).
        mode: of what is made.

    Raises:
        OSError: as openat2(2), mkdirat(2).
    """
    try:
        return openat2(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        if not kind:
            raise
    parent, _, name = path.rstrip("/").rpartition("/")
    parent_fd = make_path(root_fd, parent or ".", "dir", mode=0o755)
    try:
        if kind == "dir":
            os.mkdir(name, mode, dir_fd=parent_fd)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent_fd))
        return openat2(parent_fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH)
    finally:
        os.close(parent_fd)
