"""File descriptors: pass them over unix sockets, close the rest."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Sequence

from pylxc.kernel.libc import syscall

MAX_FDS = 253
"""Most descriptors in one message (SCM_MAX_FD)."""


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> int:
    """Send `data` (at least one byte) as one message with copies of `fds`; return how much of it was sent.

    Raises:
        OSError: see sendmsg(2).
    """
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], extra, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, size: int, max_fds: int = 0) -> tuple[bytes, list[int]]:
    """Return one message and its descriptors (close-on-exec, the caller's to close); b"" at the end.

    Descriptors beyond `max_fds` are closed by the kernel.

    Raises:
        OSError: see recvmsg(2); EMSGSIZE when the message is longer than `size`.
    """
    room = socket.CMSG_SPACE(max_fds * 4) if max_fds else 0
    data, extra, flags, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found = array.array("i")
            found.frombytes(content[: len(content) - len(content) % 4])
            fds.extend(found)
    if flags & socket.MSG_TRUNC:
        close(fds)
        raise OSError(90, "recvmsg: message longer than the buffer")
    return data, fds


def close(fds: Iterable[int]) -> None:
    """Close every descriptor of `fds`."""
    for fd in fds:
        os.close(fd)


def close_all_but(keep: Iterable[int]) -> None:
    """Close all descriptors of this process but those in `keep`. See: close_range(2)."""
    first = 0
    for fd in sorted(set(keep)):
        if fd > first:
            syscall("close_range", first, fd - 1, 0)
        first = fd + 1
    syscall("close_range", first, 0x7FFFFFFF, 0)


def replace_stdio(fd: int) -> None:
    """Make `fd` standard input, output and error of this process (inheritable)."""
    for number in (0, 1, 2):
        os.dup2(fd, number)
