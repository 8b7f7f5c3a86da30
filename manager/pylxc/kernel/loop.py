"""Loop devices: a file as a block device. See: loop(4), linux/loop.h."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import struct

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_SET_CAPACITY = 0x4C07
_AUTOCLEAR = 4
_DIRECT_IO = 16
_TRIES = 64

# struct loop_config: the file's descriptor, the block size (0: the kernel's choice), struct loop_info64, reserved.
_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")


def attach(path: str) -> tuple[str, int]:
    """Make a loop device of a file and return its path and a descriptor of it (close-on-exec, the caller's).

    The device goes when the last user closes or unmounts it: hold the descriptor until it is mounted.

    Raises:
        OSError: ENOENT when the kernel has no loop devices, EBUSY when all are taken.
    """
    file_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device, fd = _free()
            try:
                _configure(fd, file_fd, path)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise
                continue  # somebody else took it in the meantime
            except BaseException:
                os.close(fd)
                raise
            return device, fd
    finally:
        os.close(file_fd)
    raise OSError(errno.EBUSY, "every loop device is taken", path)


def device_of(path: str) -> str:
    """Return the loop device that a file is.

    Raises:
        OSError: ENOENT when it is none.
    """
    for found in glob.iglob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError), open(found, encoding="utf-8", errors="surrogateescape") as file:
            if file.read().rstrip("\n") == os.path.realpath(path):
                return f"/dev/{found.split('/')[3]}"
    raise FileNotFoundError(errno.ENOENT, "no loop device", path)


def refresh(device: str) -> None:
    """Have a loop device take the size that its file has by now.

    Raises:
        OSError: ENXIO when it is no loop device in use.
    """
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_SET_CAPACITY)
    finally:
        os.close(fd)


def _free() -> tuple[str, int]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    device = f"/dev/loop{number}"
    return device, os.open(device, os.O_RDWR | os.O_CLOEXEC)


def _configure(fd: int, file_fd: int, path: str) -> None:
    name = os.fsencode(path)[:63]
    for flags in (_AUTOCLEAR | _DIRECT_IO, _AUTOCLEAR):  # not every file system below can do direct I/O
        config = _CONFIG.pack(file_fd, 0, *[0] * 5, 0, 0, 0, flags, name, b"", b"", 0, 0, *[0] * 8)
        try:
            fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
        except OSError as error:
            if error.errno != errno.EINVAL or not flags & _DIRECT_IO:
                raise
        else:
            return
