"""The listening sockets of guests: few connections, few requests, no time to waste.

What is too much waits outside: the kernel makes the client wait, and the client pays for it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pylxc.api.gates import Gate, Pace, PatientProtocol

if TYPE_CHECKING:
    from pylxc.services.guests.sockets import Guest

CONNECTIONS = 32
"""Of one door at the same time."""
IDLE_SECONDS = 15.0
"""How long a connection may be without a request that is being answered."""
BURST = 250
PER_SECOND = 25.0
"""Requests and connections of one door: so many at once, and so many in the long run."""
_MAX_LINE = 8190


class Door(Gate):
    """A guest's socket and its connections; all on the event loop.

    Args:
        http: answers requests.
        guest: whose it is.
        listener: non-blocking; closed with the door.
    """

    def __init__(self, http: web.Server, guest: Guest, listener: socket.socket) -> None:
        self.guest = guest
        self.pace = Pace(BURST, PER_SECOND)
        self._http = http
        self._connections: set[DoorProtocol] = set()
        super().__init__(listener, f"guest {guest.key}")

    def close(self) -> None:
        """Close the socket and every connection."""
        super().close()
        for connection in list(self._connections):
            connection.abort()

    def lost(self, connection: DoorProtocol) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)
        self.listen()

    def has_room(self) -> bool:
        """Tell whether there are few enough."""
        return len(self._connections) + len(self._opening) < CONNECTIONS

    def enter(self, connection: socket.socket, address: Any) -> None:
        """Let a connection in, and the next one when it is its turn."""
        if wait := self.pace.take():
            self.pause(wait)
        self.open(DoorProtocol(self, self._http), connection)

    def opened(self, connection: DoorProtocol) -> None:
        """Note a connection."""
        self._connections.add(connection)
        if not self.is_open:
            connection.abort()


class DoorProtocol(PatientProtocol):
    """A connection through a door."""

    def __init__(self, door: Door, http: web.Server) -> None:
        super().__init__(http, IDLE_SECONDS, _MAX_LINE)
        self.door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.door.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        super().connection_lost(exc)
        self.door.lost(self)

    async def begin(self) -> None:
        """A request has come: wait until it is its turn."""
        self.work()
        await asyncio.sleep(self.door.pace.take())

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
