"""The listeners on the network: TLS, and bounds on what strangers may take of this server.

Who has no certificate that is trusted is a stranger, and everybody is until their first request. Of their connections
there is a number for each address and one for all; beyond that the oldest one goes, so that a crowd of them does not
keep out who is trusted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pylxc.api.gates import Gate, Pace, PatientProtocol
from pylxc.api.http import MAX_LINE

if TYPE_CHECKING:
    from pylxc.api.tls import TlsContext


HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 15.0
"""How long a stranger's connection may be without a request that is being answered."""
LINGERING_SECONDS = 5.0
STRANGERS = 512
STRANGERS_OF_ADDRESS = 128
"""Connections at the same time."""
BURST = 100
PER_SECOND = 10.0
"""Requests of an address's strangers: so many at once, and so many in the long run."""
SECRETS = 5
SECRETS_PER_SECOND = 0.5
"""Passwords and tokens that an address may try."""
_ADDRESSES = 4096


class Visitors:
    """What is known of an address: how many strangers come from it, and how much they have asked for."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = Pace(BURST, PER_SECOND)
        self.secrets = Pace(SECRETS, SECRETS_PER_SECOND)

    @property
    def are_gone(self) -> bool:
        """Whether nothing need be remembered of them."""
        return not self.connections and self.requests.is_idle and self.secrets.is_idle


class Crowd:
    """The strangers at all gates together; on the event loop."""

    def __init__(self) -> None:
        self._visitors: dict[str, Visitors] = {}
        self._inside: dict[TlsProtocol, Visitors] = {}

    def admit(self, stranger: TlsProtocol, address: str) -> Visitors:
        """Count a connection in, at another's cost when there are too many."""
        key = _network(address)
        if key not in self._visitors and len(self._visitors) >= _ADDRESSES:
            self._visitors = {known: of for known, of in self._visitors.items() if not of.are_gone}
        visitors = self._visitors.setdefault(key, Visitors())
        if visitors.connections >= STRANGERS_OF_ADDRESS:
            self._drop(next(other for other, of in self._inside.items() if of is visitors))
        elif len(self._inside) >= STRANGERS:
            self._drop(next(iter(self._inside)))
        visitors.connections += 1
        self._inside[stranger] = visitors
        return visitors

    def _drop(self, stranger: TlsProtocol) -> None:
        self.leave(stranger)
        stranger.abort()

    def leave(self, stranger: TlsProtocol) -> None:
        """Count a connection out: it has ended, or is no stranger's."""
        if (visitors := self._inside.pop(stranger, None)) is not None:
            visitors.connections -= 1


class TlsGate(Gate):
    """A listening TCP socket.

    Args:
        http: answers requests.
        listener: non-blocking; closed with the gate.
        context: the TLS to speak.
        crowd: counts strangers.
        only: the one path that is answered here, "" for all.
    """

    def __init__(
        self, http: web.Server, listener: socket.socket, context: TlsContext, crowd: Crowd, only: str = ""
    ) -> None:
        self.crowd = crowd
        self.only = only
        self._http = http
        self._context = context
        super().__init__(listener, "a client")

    def enter(self, connection: socket.socket, address: Any) -> None:
        """Let a connection in, and have it speak TLS soon."""
        self.open(
            TlsProtocol(self, self._http, str(address[0])),
            connection,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=HANDSHAKE_SECONDS,
        )

    async def _open(self, protocol: PatientProtocol, connection: socket.socket, options: dict[str, Any]) -> None:
        assert isinstance(protocol, TlsProtocol)
        try:
            await super()._open(protocol, connection, options)
        finally:
            if protocol.transport is None:  # there was no handshake, and nobody else tells of the end
                self.crowd.leave(protocol)


class TlsProtocol(PatientProtocol):
    """A connection from the network; a stranger's until a request shows that it is not.

    Attributes:
        address: the client's.
        gate: where it came in.
        certificate: what the client has shown, as DER; None for nothing.
    """

    def __init__(self, gate: TlsGate, http: web.Server, address: str) -> None:
        super().__init__(http, IDLE_SECONDS, MAX_LINE, LINGERING_SECONDS)
        self.gate = gate
        self.address = address
        self.certificate: bytes | None = None
        self._visitors = gate.crowd.admit(self, address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who is there, and begin to wait for a request."""
        self.certificate = transport.get_extra_info("ssl_object").getpeercert(True)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self.gate.crowd.leave(self)
        super().connection_lost(exc)

    async def begin(self, *, trusted: bool) -> None:
        """A request has come: a stranger's waits until it is its turn."""
        self.work()
        # aiohttp ends idle connections after an hour; unlike this limit that does not count the time an answer takes.
        self._seconds = 0.0 if trusted else IDLE_SECONDS
        if trusted:
            self.gate.crowd.leave(self)
        else:
            await asyncio.sleep(self._visitors.requests.take())

    def vouch(self) -> None:
        """The client has a secret for what it asks, from somebody who is trusted: count it as no stranger."""
        self.gate.crowd.leave(self)

    async def try_secret(self) -> None:
        """Somebody tries a password or a token: wait until the address may."""
        await asyncio.sleep(self._visitors.secrets.take())


def _network(address: str) -> str:
    """Return what counts as one address: for IPv6 the network that a host can choose addresses of."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return address
