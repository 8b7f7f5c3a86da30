"""System calls through glibc's `syscall()`: one table of numbers, one call that raises `OSError`.

Calls that Python offers itself are not here. Everything else in this package is built on `syscall`.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_M_ARENA_MAX = -8  # See: malloc.h

# Numbers from 424 on are the same on every architecture. See: include/uapi/asm-generic/unistd.h
_COMMON = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
_X86_64 = {
    "rt_sigaction": 13,
    "inotify_add_watch": 254,
    "inotify_rm_watch": 255,
    "inotify_init1": 294,
    "pivot_root": 155,
    "mount": 165,
    "umount2": 166,
    "capget": 125,
    "capset": 126,
    "prctl": 157,
    "keyctl": 250,
    "unshare": 272,
    "open_by_handle_at": 304,
    "syncfs": 306,
    "setns": 308,
    "renameat2": 316,
    "seccomp": 317,
    "bpf": 321,
}
# arm64, riscv64 and every later architecture share one table. See: include/uapi/asm-generic/unistd.h
_GENERIC = {
    "rt_sigaction": 134,
    "inotify_init1": 26,
    "inotify_add_watch": 27,
    "inotify_rm_watch": 28,
    "pivot_root": 41,
    "mount": 40,
    "umount2": 39,
    "capget": 90,
    "capset": 91,
    "prctl": 167,
    "keyctl": 219,
    "unshare": 97,
    "open_by_handle_at": 265,
    "syncfs": 267,
    "setns": 268,
    "renameat2": 276,
    "seccomp": 277,
    "bpf": 280,
}
NUMBERS = _COMMON | (_X86_64 if os.uname().machine == "x86_64" else _GENERIC)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

Argument = int | bytes | str | None | ctypes.Array[ctypes.c_char] | ctypes.Structure


def _argument(value: Argument) -> object:
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, str):
        return ctypes.c_char_p(os.fsencode(value))
    if isinstance(value, bytes):
        return ctypes.c_char_p(value)
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    return value


def syscall(name: str, *args: Argument, path: str | None = None) -> int:
    """Make the system call `name` and return its result.

    Args:
        name: a key of `NUMBERS`.
        args: numbers as they are, `str` and `bytes` as C strings, structures and buffers by address.
        path: the file that an error is about.

    Raises:
        OSError: the call failed; the message names the call. See: syscall(2)
    """
    result: int = _libc.syscall(ctypes.c_long(NUMBERS[name]), *map(_argument, args))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}", path)
    return result


def ioctl(fd: int, request: int, buffer: bytearray) -> None:
    """Control a device or file system through a buffer that is read and written. Other threads go on meanwhile.

    `fcntl.ioctl` lets them do so for buffers of up to 1024 bytes only, and some calls wait for the disk. See: ioctl(2)

    Raises:
        OSError: it failed.
    """
    if _libc.ioctl(fd, ctypes.c_ulong(request), (ctypes.c_char * len(buffer)).from_buffer(buffer)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def limit_arenas(count: int) -> None:
    """Let malloc keep at most `count` arenas, where it would have eight for each CPU. See: mallopt(3)."""
    _libc.mallopt(_M_ARENA_MAX, count)
