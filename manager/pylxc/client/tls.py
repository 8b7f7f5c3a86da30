"""Connections to servers on the network. Nothing on the way to the local server imports this."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket as sockets
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pylxc.client.http import Unreachable
from pylxc.errors import BadRequest

TIMEOUT_SECONDS = 15


class ChangedCertificate(Unreachable):
    """The server has another certificate than the one that is pinned."""


class TlsStream:
    """A TLS connection as `client.http.Connection` uses it.

    Attributes:
        socket: what it runs on.
    """

    def __init__(self, socket: ssl.SSLSocket) -> None:
        self.socket = socket
        self._ahead = b""

    def sendall(self, data: bytes, /) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def recv(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        try:
            return self.socket.recv(size)
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLError as error:
            raise Unreachable(f"The connection broke: {error.reason or error}") from error

    def readable(self, timeout: float) -> bool:
        """Return whether data or the end arrives within `timeout` seconds; what TLS says for itself is neither."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        while not self._ahead:
            left = max(0.0, deadline - time.monotonic())
            if not self.socket.pending() and not poll.poll(left * 1000):
                return False
            before = self.socket.gettimeout()
            self.socket.settimeout(0)
            try:
                self._ahead = self.socket.recv(1)
            except (ssl.SSLWantReadError, BlockingIOError):
                continue
            except OSError:
                return True
            finally:
                self.socket.settimeout(before)
            return True
        return True

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the stream."""
        self.socket.close()


class SharedSocket:
    """A TLS connection that one thread reads while others write to it: as much of a socket as websockets uses.

    OpenSSL's connections are for one thread at a time (openssl-threads(7)), and Python does not see to that before
    3.13: a write that comes while a read takes in the server's session tickets is never sent. Here nobody waits inside.

    Args:
        socket: after its handshake.
    """

    def __init__(self, socket: ssl.SSLSocket) -> None:
        socket.setblocking(False)
        self._socket = socket
        self._timeout: float | None = None
        self._lock = threading.Lock()
        self.family = socket.family
        self.fileno = socket.fileno
        self.setsockopt = socket.setsockopt
        self.getsockname = socket.getsockname
        self.getpeername = socket.getpeername

    def gettimeout(self) -> float | None:
        """Return how many seconds reading and writing may take."""
        return self._timeout

    def settimeout(self, seconds: float | None) -> None:
        """Say how many seconds reading and writing may take, None for any time."""
        self._timeout = seconds

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end; raises TimeoutError and OSError."""
        data: bytes = self._try(partial(self._socket.recv, size))
        return data

    def sendall(self, data: bytes) -> None:
        """Send all of `data`; raises TimeoutError and OSError."""
        view = memoryview(data)
        while view:
            view = view[self._try(partial(self._socket.send, view)) :]

    def shutdown(self, how: int) -> None:
        """Close one direction or both, of TCP: the other one goes on to speak TLS."""
        sockets.socket.shutdown(self._socket, how)

    def close(self) -> None:
        """Close the connection, and wake who waits for it."""
        with contextlib.suppress(OSError):
            self.shutdown(sockets.SHUT_RDWR)
        with self._lock:
            self._socket.close()

    def _try(self, step: Callable[[], Any]) -> Any:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            try:
                with self._lock:
                    return step()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            poll = select.poll()
            poll.register(self._socket, events)
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(left):
                raise TimeoutError("timed out")


def dial(url: str, certificate: str = "", key_pair: tuple[str, str] | None = None) -> TlsStream:
    """Connect to `https://HOST:PORT`.

    Args:
        url: the server.
        certificate: PEM of the only one that it may have; without it, one that an authority of this host has signed.
        key_pair: files of the caller's certificate and key.

    Raises:
        ChangedCertificate: it has another certificate, or one that is not trusted.
        Unreachable: nothing answers there, or nothing that speaks TLS.
        BadRequest: the URL is malformed, or the caller's key cannot be used.
    """
    context = ssl.create_default_context(cadata=certificate or None)
    if certificate:
        # This very certificate is trusted, whoever it says that it is for. It is compared below all the same: it could
        # have signed others.
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if key_pair is not None:
        try:
            context.load_cert_chain(*key_pair)
        except OSError as error:
            reason = error.strerror or getattr(error, "reason", "") or error
            raise BadRequest(f"{key_pair[0]} and {key_pair[1]} cannot be used: {reason}") from error
    try:
        socket = open_tls(url, context)
    except ssl.SSLCertVerificationError as error:
        said = "is not the one that was accepted" if certificate else f"is not trusted ({error.verify_message})"
        raise ChangedCertificate(f"The certificate of {url} {said}") from error
    except OSError as error:
        raise Unreachable(f"Failed to connect to {url}: {error.strerror or error}") from error
    if certificate and socket.getpeercert(binary_form=True) != ssl.PEM_cert_to_DER_cert(certificate):
        socket.close()
        raise ChangedCertificate(f"The certificate of {url} is not the one that was accepted")
    socket.settimeout(None)
    return TlsStream(socket)


def open_tls(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection to `https://HOST[:PORT]`, through $https_proxy unless $no_proxy says otherwise.

    Raises:
        OSError: it cannot be made.
        BadRequest: the URL is malformed.
    """
    connection = https_connection(url, context)
    try:
        connection.connect()
    except http.client.HTTPException as error:
        raise OSError(str(error) or type(error).__name__) from error
    assert isinstance(connection.sock, ssl.SSLSocket)
    # A server may be silent for as long as something takes; TCP finds out when its host has gone.
    connection.sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
    for option, value in ((sockets.TCP_KEEPIDLE, 30), (sockets.TCP_KEEPINTVL, 15), (sockets.TCP_KEEPCNT, 4)):
        connection.sock.setsockopt(sockets.IPPROTO_TCP, option, value)
    return connection.sock


def https_connection(url: str, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """Return what connects to `https://HOST[:PORT]`, by the proxy that the environment names; raises BadRequest."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError as error:
        raise BadRequest(f"Invalid URL {url!r}: {error}") from error
    proxy = urlsplit(getproxies().get("https", ""))
    if not proxy.hostname or proxy_bypass(host):
        return http.client.HTTPSConnection(host, port, context=context, timeout=TIMEOUT_SECONDS)
    connection = http.client.HTTPSConnection(
        proxy.hostname, proxy.port or 3128, context=context, timeout=TIMEOUT_SECONDS
    )
    connection.set_tunnel(host, port)
    return connection
