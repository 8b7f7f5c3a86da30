"""The HTTP server: aiohttp's low-level one, whose own errors are JSON envelopes as well."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from pylxc.api import responses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

MAX_LINE = 256 * 1024
"""Bytes of the request line and of each header, at most; image properties travel in a header."""


class HttpServer(web.Server):
    """A protocol factory for `loop.create_unix_server`.

    Args:
        handler: answers one request; must not raise but for a connection that is gone.
    """

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        # A client that goes away must not cut off what it has begun, so handler_cancellation stays off.
        super().__init__(handler, handler_cancellation=False)
        self._event_loop = asyncio.get_running_loop()

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return RefusingProtocol(
            self,
            loop=self._event_loop,
            auto_decompress=False,  # an image is stored as it was sent
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            logger=log,
        )


class RefusingProtocol(RequestHandler):
    """aiohttp's, but for what it says to a request that is no HTTP."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, and close."""
        return refusal(request, status, exc)


def refusal(request: web.BaseRequest, status: int, exc: BaseException | None) -> web.StreamResponse:
    """Return the answer to what the parser refused, or nobody could answer; raises ConnectionError: it is too late."""
    if request.writer.output_size > 0:
        raise ConnectionError("an answer has begun already")
    if isinstance(exc, LineTooLong):
        response = responses.error(431, "The request's header is too large")
    elif status == 400:
        response = responses.error(400, "Malformed HTTP request")
    elif isinstance(exc, ConnectionError):
        log.debug("A client has gone in the middle of its request: %s", exc)
        response = responses.error(400, "The request broke off")
    else:
        log.error("Failed handling a request", exc_info=exc)
        response = responses.error(status, "Internal error")
    response.force_close()
    response.headers["Connection"] = "close"  # aiohttp takes what it cannot parse for HTTP/1.0 and says nothing
    return response


def plain_socket(request: web.BaseRequest) -> socket.socket | None:
    """Return the unix socket of a request, None when it came by another way.

    Only this one may be handed to others, and be read and written beside aiohttp: anything else speaks TLS.
    """
    connection: socket.socket | None = request.get_extra_info("socket")
    return connection if connection is not None and connection.family == socket.AF_UNIX else None


def peer(request: web.BaseRequest) -> tuple[int, int] | None:
    """Return (pid, uid) of the process at the other end of a unix socket, None when it is no unix socket.

    See: unix(7), SO_PEERCRED
    """
    connection = plain_socket(request)
    if connection is None:
        return None
    pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
