"""What happens to names in directories. See: inotify(7)."""

from __future__ import annotations

import contextlib
import os
import struct

from pylxc.kernel.libc import syscall

# See: sys/inotify.h
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_ONLYDIR = 0x01000000
_NAMES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
OVERFLOW = -1
"""What stands for a directory when events were lost."""

_EVENT = struct.Struct("iIII")
_BYTES = 1 << 16


class Inotify:
    """Hears of names that come to directories and leave them; for one thread."""

    def __init__(self) -> None:
        self._fd = syscall("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor, readable when there are events."""
        return self._fd

    def add(self, directory: str) -> int:
        """Watch a directory; one that is watched already keeps its number, which is returned.

        Raises:
            OSError: it is none, or not there; ENOSPC when the host allows no more.
        """
        return syscall("inotify_add_watch", self._fd, directory, _NAMES, path=directory)

    def remove(self, number: int) -> None:
        """Watch a directory no longer, if it is still there."""
        with contextlib.suppress(OSError):
            syscall("inotify_rm_watch", self._fd, number)

    def read(self) -> set[tuple[int, str]]:
        """Return numbers of directories, with names in them to which something has happened since; never waits."""
        found = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, _BYTES):
                offset = 0
                while offset < len(data):
                    number, _mask, _cookie, length = _EVENT.unpack_from(data, offset)
                    offset += _EVENT.size
                    found.add((number, os.fsdecode(data[offset : offset + length].rstrip(b"\0"))))
                    offset += length
        return found

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
