"""UDP: a socket of its own to the target for every client, so that answers find their way back."""

from __future__ import annotations

import select
import socket
import time

from pylxc.runtime.proxy.flows import DATAGRAM_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.runtime.proxy.loop import Log, Loop
    from pylxc.runtime.proxy.sockets import Target

    Way = tuple[Any, tuple[tuple[int, int, bytes], ...]]

_IDLE_SECONDS = 120.0
"""How long a client is remembered that says nothing and is told nothing; as long as conntrack does."""
_ROUNDS = 64
_EARLY = 16
"""How many datagrams wait for a stream that is being connected."""
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_CONTROL_BYTES = socket.CMSG_SPACE(32)
_LINK_LOCAL = b"\xfe\x80"


class Datagrams:
    """The clients of one UDP socket.

    Args:
        loop: serves them.
        log: where failures go.
        listener: the socket.
        target: where their datagrams go; a stream gets their bytes one after the other.
        most: how many clients are remembered; then the one that has been silent longest is forgotten.
    """

    def __init__(self, loop: Loop, log: Log, listener: socket.socket, target: Target, most: int) -> None:
        self.loop = loop
        self.log = log
        self._listener = listener
        self._target = target
        self._most = most
        self._clients: dict[Way, Client] = {}  # the one that was silent longest comes first
        # One that listens on every address has to answer from the one that it was spoken to on.
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        loop.watch(listener.fileno(), select.EPOLLIN, self._receive)
        loop.after(_IDLE_SECONDS, self._forget_idle)

    def _receive(self, _events: int) -> None:
        for _ in range(_ROUNDS):
            try:
                data, extra, _, address = self._listener.recvmsg(DATAGRAM_BYTES, _CONTROL_BYTES)
            except OSError:  # nothing more; or an answer that nobody wanted (ICMP)
                return
            way = (address, tuple(_answering(*item) for item in extra))
            client = self._clients.pop(way, None)
            if client is None:
                client = self._new(way)
                if client is None:
                    continue
            self._clients[way] = client
            client.used = time.monotonic()
            client.send(data)

    def _new(self, way: Way) -> Client | None:
        if len(self._clients) >= self._most:
            next(iter(self._clients.values())).close()
        try:
            return Client(self, way, self._target)
        except OSError as error:
            self.log.failed(f"connecting to {self._target.text}", error)
            return None

    def answer(self, way: Way, data: bytes) -> None:
        """Send a client what the target has answered."""
        address, extra = way
        try:
            self._listener.sendmsg([data], extra, 0, address)
        except OSError:  # the queue is full or the client is out of reach: UDP loses it
            return

    def touch(self, way: Way) -> None:
        """Note that a client was told something."""
        if (client := self._clients.pop(way, None)) is not None:
            self._clients[way] = client
            client.used = time.monotonic()

    def forget(self, way: Way) -> None:
        """Forget a client."""
        self._clients.pop(way, None)

    def _forget_idle(self) -> None:
        now = time.monotonic()
        for client in list(self._clients.values()):
            if client.used + _IDLE_SECONDS > now:
                break
            client.close()
        oldest = next(iter(self._clients.values()), None)
        self.loop.after(_IDLE_SECONDS if oldest is None else oldest.used + _IDLE_SECONDS - now, self._forget_idle)


class Client:
    """One client and its socket to the target; `used` is when something was last said, on the monotonic clock."""

    __slots__ = ("_datagrams", "_early", "_socket", "_way", "_where", "used")

    def __init__(self, datagrams: Datagrams, way: Way, where: Target) -> None:
        """Connect; raises OSError."""
        self._datagrams = datagrams
        self._way = way
        self._where = where
        self._early: list[bytes] | None = []
        self.used = 0.0
        self._socket = where.open()
        try:
            self._socket.connect(where.address)
        except BlockingIOError:  # under way
            pass
        except OSError:
            self._socket.close()
            raise
        datagrams.loop.watch(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT, self._on_event)

    def send(self, data: bytes) -> None:
        """Send the target a datagram."""
        if self._early is not None:
            if len(self._early) < _EARLY:
                self._early.append(data)
            return
        try:
            self._socket.send(data)
        except BlockingIOError:  # the queue is full: UDP loses it
            return
        except OSError as error:
            self._fail(error)

    def _on_event(self, events: int) -> None:
        try:
            if self._early is not None and events & select.EPOLLOUT:
                self._begin(self._early)
            if events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP):
                self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)

    def _begin(self, early: list[bytes]) -> None:
        self._datagrams.loop.change(self._socket.fileno(), select.EPOLLIN)
        self._early = None
        for data in early:
            self._socket.send(data)

    def _receive(self) -> None:
        self._datagrams.touch(self._way)
        for _ in range(_ROUNDS):
            data = self._socket.recv(DATAGRAM_BYTES)
            if not data and self._where.kind != "udp":
                self.close()
                return
            self._datagrams.log.worked()
            self._datagrams.answer(self._way, data)

    def _fail(self, error: OSError) -> None:
        self._datagrams.log.failed(f"sending to {self._where.text}", error)
        self.close()

    def close(self) -> None:
        """Forget the client."""
        self._datagrams.forget(self._way)
        self._datagrams.loop.forget(self._socket.fileno())
        self._socket.close()


def _answering(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Return the control message that answers one with PKTINFO: from the same address, by whatever way leads there."""
    if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
        return level, kind, bytes(4) + data[4:8] + bytes(4)
    if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO) and not data.startswith(_LINK_LOCAL):
        return level, kind, data[:16] + bytes(4)
    return level, kind, data
