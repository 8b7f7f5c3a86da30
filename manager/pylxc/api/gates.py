"""What sockets have in common whose clients are not trusted: what is too much does not get in, or not for long."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from abc import ABC, abstractmethod
from typing import Any

from aiohttp import web

from pylxc.api.http import RefusingProtocol

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


class Pace:
    """Grants so many things a second, and as many at once as nobody has asked for lately."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._at = time.monotonic()

    def take(self) -> float:
        """Take one; return the seconds to wait until it is granted."""
        self._refill()
        self._left -= 1
        return max(0.0, -self._left / self._per_second)

    @property
    def is_idle(self) -> bool:
        """Whether as much is left as there ever is."""
        self._refill()
        return self._left >= self._burst

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now


class Gate(ABC):
    """A listening socket and its connections; all on the event loop.

    Args:
        listener: non-blocking; closed with the gate.
        name: what the log calls it.

    Attributes:
        listener: the socket.
    """

    def __init__(self, listener: socket.socket, name: str) -> None:
        self.listener = listener
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._listens = False
        self.listen()

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self.listener.fileno() >= 0

    def close(self) -> None:
        """Listen no more; connections stay."""
        self.pause()
        if self._later is not None:
            self._later.cancel()
        self.listener.close()

    def listen(self) -> None:
        """Let connections in (again), unless a pause is still to end."""
        if self._later is None and not self._listens and self.is_open:
            self._loop.add_reader(self.listener, self._accept)
            self._listens = True

    def pause(self, seconds: float = 0.0) -> None:
        """Let nobody in: for some time, or until `listen`."""
        if self._listens:
            self._loop.remove_reader(self.listener)
            self._listens = False
        if seconds:
            self._later = self._loop.call_later(seconds, self._resume)

    @abstractmethod
    def enter(self, connection: socket.socket, address: Any) -> None:
        """Take a connection that has come: `open` it, or close it."""

    def has_room(self) -> bool:
        """Tell whether one more may come; the others wait outside."""
        return True

    def open(self, protocol: PatientProtocol, connection: socket.socket, **options: Any) -> None:
        """Serve a connection, `options` as for `loop.connect_accepted_socket`."""
        task = protocol.opening = self._loop.create_task(self._open(protocol, connection, options))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _resume(self) -> None:
        self._later = None
        self.listen()

    def _accept(self) -> None:
        if not self.has_room():
            self.pause()
            return
        try:
            connection, address = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptors, or no memory: others need us
            log.warning("Failed letting %s in: %s", self._name, error.strerror)
            self.pause(_PAUSE_SECONDS)
            return
        connection.setblocking(False)
        self.enter(connection, address)

    async def _open(self, protocol: PatientProtocol, connection: socket.socket, options: dict[str, Any]) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection, **options)
        except OSError:  # it is gone, or does not speak what it should
            connection.close()


class PatientProtocol(RefusingProtocol):
    """A connection to which aiohttp answers, with an end to its patience.

    Args:
        http: answers requests.
        seconds: how long it may be without a request that is being answered, 0 for any time.
        max_line: bytes of a request's line, and of each header.
        lingering: seconds that go on being read of what a request has left unread, so that it hears the answer.

    Attributes:
        opening: what sees to its beginning.
    """

    def __init__(self, http: web.Server, seconds: float, max_line: int, lingering: float = 0.0) -> None:
        super().__init__(
            http,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            lingering_time=lingering,
            max_line_size=max_line,
            max_field_size=max_line,
            logger=log,
        )
        self._seconds = seconds
        self._deadline: asyncio.TimerHandle | None = None
        self.opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.rest()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting."""
        self.work()
        super().connection_lost(exc)

    def work(self) -> None:
        """A request has come."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def rest(self) -> None:
        """No request is being answered (any more)."""
        self.work()
        if self.transport is not None and self._seconds:
            self._deadline = asyncio.get_running_loop().call_later(self._seconds, self.abort)

    def abort(self) -> None:
        """End the connection at once, in the middle of a handshake as well."""
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()
