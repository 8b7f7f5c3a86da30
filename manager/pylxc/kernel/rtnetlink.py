"""Messages of rtnetlink as the kernel packs them, so that what is read can be sent back. Standard library only.

What a program wants to say by names is in `pylxc.kernel.netlink`; this is for readers that must be quick, and for who
has to put things back exactly as they were. See: netlink(7), rtnetlink(7)
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 1 << 17
_TRIES = 10


class Rtnetlink:
    """A socket to rtnetlink in the caller's network namespace, for one thread.

    Args:
        groups: bit mask of the multicast groups whose announcements `announced` returns.
    """

    def __init__(self, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, groups))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, to be polled for announcements."""
        return self._socket.fileno()

    def dump(self, request: int, body: bytes) -> list[bytes]:
        """Return the payloads of a dump that nothing changed under.

        Args:
            request: RTM_GET*; the answers are of the type before it.
            body: its header.

        Raises:
            OSError: the kernel refuses, or the table never keeps still (EAGAIN).
        """
        for _ in range(_TRIES):
            try:
                return [bytes(payload) for payload in dump(self._socket, request, request - 2, body, whole=True)]
            except InterruptedError:
                continue
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), "netlink")

    def call(self, kind: int, body: bytes, flags: int = 0, *, about: str = "netlink") -> None:
        """Send a request and wait for the kernel's word on it; for a socket without groups.

        Raises:
            OSError: it is refused; `about` is the file name of it.
        """
        flags |= _NLM_F_REQUEST | _NLM_F_ACK
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        answer = self._socket.recv(_BUFFER)
        number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if number:
            raise OSError(number, os.strerror(number), about)

    def announced(self) -> list[tuple[int, bytes]]:
        """Return what has been announced, as (type, payload); waits when there is nothing."""
        return [(kind, bytes(payload)) for kind, _, payload in _messages(memoryview(self._socket.recv(_BUFFER)))]


def dump(sock: socket.socket, request: int, answer: int, body: bytes, *, whole: bool = False) -> Iterator[memoryview]:
    """Send a dump request and yield the payloads of the messages of type `answer`.

    Raises:
        OSError: the kernel refuses.
        InterruptedError: with `whole`, the table changed meanwhile and something may be missing.
    """
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    sock.send(_HEADER.pack(_HEADER.size + len(body), request, flags, 1, 0) + body)
    interrupted = False
    while True:
        for kind, seen, payload in _messages(memoryview(sock.recv(_BUFFER))):
            interrupted = interrupted or bool(seen & _NLM_F_DUMP_INTR)
            if kind == _NLMSG_DONE:
                if whole and interrupted:
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                return
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                raise OSError(number, f"netlink: {os.strerror(number)}")
            if kind == answer:
                yield payload


def _messages(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    while len(data) >= _HEADER.size:
        length, kind, flags, _sequence, _pid = _HEADER.unpack_from(data)
        yield kind, flags, data[_HEADER.size : length]
        data = data[align(length) :]


def attributes(data: memoryview | bytes) -> dict[int, memoryview]:
    """Return the attributes that follow a message's header, by number."""
    data = memoryview(data)
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[_ATTRIBUTE.size : length]
        data = data[align(length) :]
    return found


def pack(found: Iterable[tuple[int, bytes | memoryview]]) -> bytes:
    """Return attributes as a message carries them: the opposite of `attributes`."""
    data = b""
    for kind, value in found:
        data += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + bytes(value)
        data += bytes(align(len(data)) - len(data))
    return data


def nested(kind: int, found: Iterable[tuple[int, bytes | memoryview]]) -> tuple[int, bytes]:
    """Return an attribute, for `pack`, whose value is attributes."""
    return kind | _NESTED, pack(found)


def align(length: int) -> int:
    """Return `length` rounded up to where the next message or attribute begins."""
    return (length + 3) & ~3
