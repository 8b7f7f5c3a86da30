"""The daemon's listeners on the network: opened, moved and closed as the configuration says."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from pylxc import validate
from pylxc.api.tls_gate import Crowd, TlsGate
from pylxc.errors import BadRequest, PylxcError
from pylxc.services.addresses import PORT, joined
from pylxc.services.server import LISTENERS, Server

if TYPE_CHECKING:
    from pylxc.api.tls import TlsContext

log = logging.getLogger(__name__)

_ONLY = {"core.metrics_address": "/1.0/metrics"}
_BACKLOG = 512
_RETRY_SECONDS = 5.0

T = TypeVar("T")


class Listeners:
    """What `services.server` calls `Listeners`; made on the event loop, its methods are for every other thread.

    Args:
        http: answers requests.
        server: knows where to listen, and has the certificate.
        kept: what `keep` has returned in the daemon before.
    """

    def __init__(self, http: web.Server, server: Server, kept: Mapping[str, socket.socket]) -> None:
        self._http = http
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._crowd = Crowd()
        self._lock = threading.RLock()
        self._open: dict[str, tuple[str, TlsGate]] = {}
        self._moved: set[str] = set()
        self._kept = dict(kept)
        self._closed = threading.Event()

    def start(self) -> None:
        """Listen as configured. An address that the host does not have yet is tried again and again."""
        waiting = [key for key in LISTENERS if not self._begin(key)]
        for listener in self._kept.values():
            listener.close()
        if waiting:
            threading.Thread(target=self._wait_for, args=(waiting,), name="listeners", daemon=True).start()

    def keep(self) -> dict[str, socket.socket]:
        """Return sockets that go on listening when these here are closed, by key: for the next daemon."""
        with self._lock:
            return {key: gate.listener.dup() for key, (_, gate) in self._open.items()}

    def close(self) -> None:
        """Listen no more; connections stay."""
        self._closed.set()
        with self._lock:
            for key in list(self._open):
                self._end(key)

    def move(self, key: str, address: str) -> None:
        """Listen where `key` says from now on.

        Args:
            key: of `LISTENERS`.
            address: HOST, HOST:PORT or :PORT; "" for nowhere.

        Raises:
            BadRequest: it cannot listen there, or not with the server's certificate; it listens where it did.
        """
        with self._lock:
            self._moved.add(key)
            former, _ = self._open.get(key, ("", None))
            if former == address:
                return
            if not address:
                self._end(key)
                return
            context = self._context()
            try:
                listener = _bind(address)
            except BadRequest:
                # The former socket may be what is in the way: of another host part, but the same port.
                if not former or _port(former) != _port(address):
                    raise
                self._end(key)
                try:
                    listener = _bind(address)
                except BadRequest:
                    self._serve(key, former, _bind(former), context)
                    raise
            self._end(key)
            self._serve(key, address, listener, context)

    def _begin(self, key: str) -> bool:
        """Listen where the configuration says, if anywhere; return whether that is so."""
        # Asked first: who changes the configuration holds its lock while `move` waits for this one.
        address = self._server.value(key)
        with self._lock:
            if self._closed.is_set() or not address or key in self._open or key in self._moved:
                return True
            try:
                context = self._context()
                self._serve(key, address, self._kept.pop(key) if key in self._kept else _bind(address), context)
            except PylxcError as error:
                log.warning("%s: %s", key, error)
                return False
            return True

    def _wait_for(self, keys: list[str]) -> None:
        while keys and not self._closed.wait(_RETRY_SECONDS):
            keys = [key for key in keys if not self._begin(key)]

    def _context(self) -> TlsContext:
        # What TLS takes is loaded by who wants it: a daemon that listens nowhere starts faster.
        from pylxc.api.tls import TlsContext

        certificate = self._server.certificate
        certificate.get()
        try:
            return TlsContext(certificate.certificate_file, certificate.key_file)
        except OSError as error:
            where = f"{certificate.certificate_file} and {certificate.key_file}"
            raise BadRequest(f"{where} cannot be used: {error.strerror or error.args[0]}") from error

    def _serve(self, key: str, address: str, listener: socket.socket, context: TlsContext) -> None:
        gate = self._on_loop(lambda: TlsGate(self._http, listener, context, self._crowd, _ONLY.get(key, "")))
        self._open[key] = (address, gate)
        log.info("Listening on %s", joined(*listener.getsockname()[:2]))

    def _end(self, key: str) -> None:
        if key in self._open:
            _, gate = self._open.pop(key)
            self._on_loop(gate.close)

    def _on_loop(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()


def _port(address: str) -> int:
    return validate.listen_parts(address)[1] or PORT


def _bind(address: str) -> socket.socket:
    """Return a socket that listens on HOST, HOST:PORT or :PORT.

    Raises:
        BadRequest: it cannot; one line says why.
    """
    host, port = validate.listen_parts(address)[0], _port(address)
    try:
        if host in ("", "::"):
            return _listen(socket.AF_INET6, ("::", port), dual=True)
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _listen(family, where)
    except OSError as error:
        if host == "" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # no IPv6 here
            return _bind(f"0.0.0.0:{port}")
        raise BadRequest(f"Cannot listen on {joined(host, port)}: {error.strerror or error}") from error


def _listen(family: int, where: tuple[Any, ...], *, dual: bool = False) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
