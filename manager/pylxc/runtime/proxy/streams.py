"""Connections: a client that was accepted, the target that is connected for it, and a flow each way."""

from __future__ import annotations

import errno
import os
import select
import socket

from pylxc.runtime.proxy import sockets
from pylxc.runtime.proxy.flows import MessageFlow, Pipes, SpliceFlow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.runtime.proxy.loop import Log, Loop
    from pylxc.runtime.proxy.sockets import Target

    Flow = SpliceFlow | MessageFlow

_ACCEPTS = 64
_IN = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_OUT = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_ACCEPT_SECONDS = 0.1
_PIPE_SECONDS = 0.05
"""How soon to look again for a pipe when all descriptors are taken."""
_BACKLOG_SECONDS = 0.02
_BACKLOG_TRIES = 250
"""A unix socket whose queue is full says so at once: tried again for 5 s."""


class Streams:
    """What the connections of one device share.

    Args:
        loop: serves them.
        log: where failures go.
        pipes: for their bytes.
        most: how many there may be; further ones wait in the kernel's queue.
        header: whether targets are told of their client first.
    """

    def __init__(self, loop: Loop, log: Log, pipes: Pipes, most: int, *, header: bool) -> None:
        self.loop = loop
        self.log = log
        self.pipes = pipes
        self.header = header
        self._most = most
        self._count = 0
        self._accepting = True
        self._listeners: dict[socket.socket, Target] = {}

    def add(self, listener: socket.socket, target: Target) -> None:
        """Accept on `listener` and connect to `target`."""
        self._listeners[listener] = target
        if self._accepting:
            self._watch(listener)

    def replace(self, listener: socket.socket, target: Target) -> None:
        """Accept on `listener` alone."""
        for old in self._listeners:
            self.loop.forget(old.fileno())
            old.close()
        self._listeners.clear()
        self.add(listener, target)

    def ended(self) -> None:
        """Note that a connection has ended."""
        self._count -= 1
        self._accept_again()

    def _watch(self, listener: socket.socket) -> None:
        target = self._listeners[listener]
        self.loop.watch(listener.fileno(), select.EPOLLIN, lambda _: self._accept(listener, target))

    def _accept(self, listener: socket.socket, target: Target) -> None:
        for _ in range(_ACCEPTS):
            try:
                client, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or no memory is left: looking on would only burn the processor
                self.log.failed("taking a connection", error)
                self._pause()
                self.loop.after(_ACCEPT_SECONDS, self._accept_again)
                return
            client.setblocking(False)
            self._count += 1
            Connection(self, client, target)
            if self._count >= self._most:
                self._pause()
                return

    def _pause(self) -> None:
        self._accepting = False
        for listener in self._listeners:
            self.loop.forget(listener.fileno())

    def _accept_again(self) -> None:
        if not self._accepting and self._count < self._most:
            self._accepting = True
            for listener in self._listeners:
                self._watch(listener)


class Connection:
    """One connection."""

    __slots__ = (
        "_client",
        "_closed",
        "_connected",
        "_down",
        "_queued",
        "_streams",
        "_target",
        "_tries",
        "_up",
        "_where",
    )

    def __init__(self, streams: Streams, client: socket.socket, where: Target) -> None:
        self._streams = streams
        self._client = client
        self._where = where
        self._tries = 0
        self._closed = self._connected = False
        self._queued: list[Flow] = []
        self._target: socket.socket | None = None
        if client.family != socket.AF_UNIX:
            sockets.prepare(client, "tcp")
        self._connect()

    def _connect(self) -> None:
        try:
            self._target = target = self._where.open()
        except OSError as error:  # too many descriptors
            self._fail(error)
            return
        number = target.connect_ex(self._where.address)
        if number == errno.EAGAIN and self._tries < _BACKLOG_TRIES:
            self._tries += 1
            target.close()
            self._streams.loop.after(_BACKLOG_SECONDS, self._connect)
        elif number in (0, errno.EINPROGRESS):
            self._streams.loop.watch(target.fileno(), _ALL, self._on_target)
        else:
            self._fail(OSError(number, os.strerror(number)))

    def _fail(self, error: OSError) -> None:
        self._streams.log.failed(f"connecting to {self._where.text}", error)
        self._close(reset=True)

    def _begin(self) -> None:
        """The target is there."""
        target = self._target
        assert target is not None
        if number := target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(OSError(number, os.strerror(number)))
            return
        streams = self._streams
        streams.log.worked()
        if streams.header:
            try:
                target.send(sockets.proxy_header(self._client))
            except OSError as error:
                self._fail(error)
                return
        self._connected = True
        self._up = self._flow(self._client, target)
        self._down = self._flow(target, self._client)
        streams.loop.watch(self._client.fileno(), _ALL, self._on_client)
        self._move(self._up)
        self._move(self._down)

    def _flow(self, source: socket.socket, sink: socket.socket) -> Flow:
        if self._where.kind == "udp":
            return MessageFlow(source, sink, with_fds=False)
        if source.family == sink.family == socket.AF_UNIX:
            return MessageFlow(source, sink, with_fds=True)
        return SpliceFlow(source, sink, self._streams.pipes)

    def _on_client(self, events: int) -> None:
        if events & _IN:
            self._move(self._up)
        if events & _OUT and self._down.waits_for_sink:
            self._move(self._down)

    def _on_target(self, events: int) -> None:
        if not self._connected:
            if events & _OUT:
                self._begin()
            return
        if events & _IN:
            self._move(self._down)
        if events & _OUT and self._up.waits_for_sink:
            self._move(self._up)

    def _move(self, flow: Flow) -> None:
        if self._closed:
            return
        try:
            if flow.move() and flow not in self._queued:
                self._queued.append(flow)
                self._streams.loop.again(self._go_on)
        except OSError as error:
            if error.errno == errno.EMFILE:
                self._streams.loop.after(_PIPE_SECONDS, lambda: self._move(flow))
            else:
                self._close(reset=True)
            return
        if (self._up.done and self._down.done) or (flow.done and self._where.kind == "udp"):
            self._close(reset=False)

    def _go_on(self) -> None:
        flows, self._queued = self._queued, []
        for flow in flows:
            self._move(flow)

    def _close(self, *, reset: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._connected:
            self._up.close()
            self._down.close()
        for sock in (self._client, self._target):
            if sock is not None:
                if reset:
                    sockets.reset_on_close(sock)
                self._streams.loop.forget(sock.fileno())
                sock.close()
        self._streams.ended()
