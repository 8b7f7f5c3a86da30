"""One direction of a connection: bytes from a source to a sink, neither of which ever blocks.

`move` moves what can be moved at once. Events are edge-triggered: after it has returned False there will be one.
"""

from __future__ import annotations

import fcntl
import os
import socket

from pylxc.kernel import fds as descriptors

_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_PIPE_BYTES = 1 << 20
_ROUNDS = 16
"""How often a flow moves something before others get their turn."""
_SPARE_PIPES = 16
DATAGRAM_BYTES = 65507
"""What one datagram of UDP can hold."""


class Pipes:
    """Pipes that flows have while they have something to hold; an idle connection needs none."""

    def __init__(self, ready: int = 0) -> None:
        """Make so many pipes ahead, for root: others may be refused large ones."""
        self._spare = [_new_pipe() for _ in range(ready)]

    def take(self) -> tuple[int, int]:
        """Return an empty pipe: its end to read and its end to write."""
        return self._spare.pop() if self._spare else _new_pipe()

    def give_back(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Take a pipe that is not needed any more."""
        if empty and len(self._spare) < _SPARE_PIPES:
            self._spare.append(pipe)
        else:
            descriptors.close(pipe)


def _new_pipe() -> tuple[int, int]:
    pipe = os.pipe()
    try:
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:  # this user has much in pipes already; a small one does, too
        return pipe
    return pipe


class SpliceFlow:
    """Bytes of a stream, which the kernel moves through a pipe without this process seeing them."""

    __slots__ = ("_ended", "_held", "_pipe", "_pipes", "_sink", "_source", "done", "sink")

    def __init__(self, source: socket.socket, sink: socket.socket, pipes: Pipes) -> None:
        self._source = source.fileno()
        self._sink = sink.fileno()
        self._pipes = pipes
        self._pipe: tuple[int, int] | None = None
        self._held = 0
        self._ended = False
        self.sink = sink
        self.done = False

    @property
    def waits_for_sink(self) -> bool:
        """Whether there is something that the sink did not take."""
        return self._held > 0

    def move(self) -> bool:
        """Move what can be moved; return whether there may be more at once.

        Raises:
            OSError: the connection is broken.
        """
        if self.done:
            return False
        pipe = self._pipe or self._pipes.take()
        self._pipe = pipe
        try:
            for _ in range(_ROUNDS):
                if not self._held:
                    self._held = os.splice(self._source, pipe[1], _PIPE_BYTES, flags=_SPLICE)
                    if not self._held:
                        self._finish()
                        return False
                self._held -= os.splice(pipe[0], self._sink, self._held, flags=_SPLICE)
        except BlockingIOError:
            if not self._held:
                self.close()
            return False
        return True

    def _finish(self) -> None:
        self.done = True
        self.close()
        self.sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the pipe; the sockets are the connection's."""
        if self._pipe is not None:
            self._pipes.give_back(self._pipe, empty=not self._held)
            self._pipe = None


class MessageFlow:
    """What splice cannot carry: descriptors from one unix socket to another, and datagrams."""

    __slots__ = ("_data", "_fds", "_source", "_with_fds", "done", "sink")

    def __init__(self, source: socket.socket, sink: socket.socket, *, with_fds: bool) -> None:
        self._source = source
        self._with_fds = with_fds
        self._data = b""
        self._fds: list[int] = []
        self.sink = sink
        self.done = False

    @property
    def waits_for_sink(self) -> bool:
        """Whether there is something that the sink did not take."""
        return bool(self._data)

    def move(self) -> bool:
        """See `SpliceFlow`."""
        if self.done:
            return False
        try:
            for _ in range(_ROUNDS):
                if not self._data:
                    room = descriptors.MAX_FDS if self._with_fds else 0
                    self._data, self._fds = descriptors.receive(self._source, DATAGRAM_BYTES, room)
                    if not self._data:
                        self.done = True
                        self.sink.shutdown(socket.SHUT_WR)
                        return False
                sent = descriptors.send(self.sink, self._data, self._fds)
                self.close()
                self._data = self._data[sent:]
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the descriptors that were not passed on."""
        descriptors.close(self._fds)
        self._fds = []
