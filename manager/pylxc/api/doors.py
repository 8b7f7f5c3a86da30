"""Listening sockets whose clients are not trusted: few connections, few requests, no time to waste.

What is too much waits outside: the kernel makes the client wait, and the client pays for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

if TYPE_CHECKING:
    from pylxc.services.guests.sockets import Guest

log = logging.getLogger(__name__)

CONNECTIONS = 32
"""Of one door at the same time."""
IDLE_SECONDS = 15.0
"""How long a connection may be without a request that is being answered."""
BURST = 250
PER_SECOND = 25.0
"""Requests and connections of one door: so many at once, and so many in the long run."""
_MAX_LINE = 8190
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
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second) - 1
        self._at = now
        return max(0.0, -self._left / self._per_second)


class Door:
    """A listening socket and its connections; all on the event loop.

    Args:
        http: answers requests.
        guest: whose it is.
        listener: non-blocking; closed with the door.
    """

    def __init__(self, http: web.Server, guest: Guest, listener: socket.socket) -> None:
        self.guest = guest
        self.pace = Pace(BURST, PER_SECOND)
        self._http = http
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._connections: set[DoorProtocol] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._listens = False
        self._listen()

    def close(self) -> None:
        """Close the socket and every connection."""
        self._pause()
        if self._later is not None:
            self._later.cancel()
        self._listener.close()
        for connection in list(self._connections):
            connection.abort()

    def lost(self, connection: DoorProtocol) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)
        if self._later is None:
            self._listen()

    def _listen(self) -> None:
        self._later = None
        if not self._listens and self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)
            self._listens = True

    def _pause(self, seconds: float = 0.0) -> None:
        if self._listens:
            self._loop.remove_reader(self._listener)
            self._listens = False
        if seconds:
            self._later = self._loop.call_later(seconds, self._listen)

    def _accept(self) -> None:
        if len(self._connections) + len(self._opening) >= CONNECTIONS:
            self._pause()
            return
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors, or no memory: others need us
            log.warning("Failed letting guest %s in: %s", self.guest.key, error.strerror)
            self._pause(_PAUSE_SECONDS)
            return
        if wait := self.pace.take():
            self._pause(wait)
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: DoorProtocol(self, self._http), connection)
        except OSError:
            connection.close()

    def opened(self, connection: DoorProtocol) -> None:
        """Note a connection."""
        self._connections.add(connection)
        if self._listener.fileno() < 0:
            connection.abort()


class DoorProtocol(RequestHandler):
    """A connection through a door: aiohttp's, with an end to its patience."""

    def __init__(self, door: Door, http: web.Server) -> None:
        super().__init__(
            http,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            lingering_time=0,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            logger=log,
        )
        self.door = door
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.door.opened(self)
        self.rest()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting."""
        self._cancel()
        super().connection_lost(exc)
        self.door.lost(self)

    async def begin(self) -> None:
        """A request has come: wait until it is its turn."""
        self._cancel()
        await asyncio.sleep(self.door.pace.take())

    def rest(self) -> None:
        """No request is being answered (any more)."""
        self._cancel()
        if self.transport is not None:
            self._deadline = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, and close; without a word in the log, which a guest could fill."""
        response = web.Response(status=status if status < 500 else 400, text="bad request\n")
        response.force_close()
        return response

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
