"""HTTP/1.1 as this client needs it: one connection, requests one after the other, bodies streamed both ways.

Written on the bare socket because `http.client` brings `email`, `ssl` and `re` along, which would double the time a
short command takes. What the bytes mean is `pylxc.client.client`'s business.
"""

from __future__ import annotations

import os
import select
import stat
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as Socket  # noqa: N812  (it is a class)

from pylxc.errors import Internal, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Protocol

    Body = bytes | int | Iterable[bytes] | None

    class TlsStream(Protocol):
        """What a connection needs of a stream that is no socket: `pylxc.client.tls`."""

        def sendall(self, data: bytes, /) -> None:
            """Send all of `data`."""

        def recv(self, size: int, /) -> bytes:
            """Return up to `size` bytes, none at the end."""
            ...

        def fileno(self) -> int:
            """Return its descriptor."""
            ...

        def readable(self, timeout: float) -> bool:
            """Return whether data or the end arrives within `timeout` seconds."""
            ...

        def close(self) -> None:
            """Close the stream."""

    Stream = Socket | TlsStream


_BLOCK = 1 << 18
_MAX_HEADER = 1 << 16
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Unreachable(Unavailable):
    """No server answers at the address."""


def quote(text: str, safe: str = "") -> str:
    """Percent-encode `text` for one segment of a path or one value of a query; `safe` names what stays."""
    if _SAFE.issuperset(text):
        return text
    return "".join(
        char if char in _SAFE or char in safe else "".join(f"%{byte:02X}" for byte in os.fsencode(char))
        for char in text
    )


def with_query(path: str, query: Mapping[str, str | int]) -> str:
    """Return `path` with `query` appended, values percent-encoded."""
    if not query:
        return path
    return path + ("&" if "?" in path else "?") + "&".join(f"{key}={quote(str(val))}" for key, val in query.items())


def connect_unix(path: str) -> Stream:
    """Open the stream socket at `path`.

    Raises:
        Unreachable: nobody listens there, or the caller may not.
    """
    sock = Socket(AF_UNIX, SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise Unreachable(f"Failed to connect to {path}: {error.strerror or error}") from error
    return sock


class Response:
    """The head of an answer and, on demand, its body. Read it to the end, or the next request drops the rest."""

    def __init__(self, connection: Connection, status: int, headers: dict[str, str], *, has_body: bool) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        length = headers.get("content-length")
        self.chunked = has_body and headers.get("transfer-encoding", "").lower() == "chunked"
        self.length: int | None = None if self.chunked else 0 if not has_body else _size(length, 10) if length else None
        if has_body and length is None and not self.chunked:
            connection.keep = False
        self._done = self.length == 0

    @property
    def pending(self) -> bool:
        """Whether the body is still to be read."""
        return not self._done and self._connection.awaits(self)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces as they arrive."""
        connection = self._connection
        if self.chunked and not self._done:
            while True:
                size = _size(connection.read_line().split(b";")[0], 16)
                if size == 0:
                    break
                yield from self._counted(size)
                connection.read_line()
            while connection.read_line():
                pass
        elif self.length is None and not self._done:
            while data := connection.read_some():
                yield data
        elif not self._done:
            yield from self._counted(self.length or 0)
        self._done = True

    def _counted(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._connection.read_some(size)
            if not data:
                raise Unreachable("The connection was closed in the middle of an answer")
            size -= len(data)
            yield data

    def read(self) -> bytes:
        """Return the whole (rest of the) body."""
        return b"".join(self.chunks())

    def into(self, fd: int, on_bytes: Callable[[int], None] | None = None) -> int:
        """Write the body to the file descriptor `fd` and return its length in bytes."""
        total = 0
        for data in self.chunks():
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            total += len(data)
            if on_bytes:
                on_bytes(len(data))
        return total

    def drain(self) -> None:
        """Drop what is left of the body."""
        if not self._done:
            for _ in self.chunks():
                pass


class Connection:
    """A connection that is opened on first use and again when the server has closed it in between.

    Args:
        dial: opens the stream; called for every new connection.
        host: value of the Host header.
    """

    def __init__(self, dial: Callable[[], Stream], host: str = "pylxc") -> None:
        self._dial = dial
        self._host = host
        self._stream: Stream | None = None
        self._buffer = b""
        self._pending: Response | None = None
        self.keep = True

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Response:
        """Send a request and return the head of its answer.

        Args:
            method: HTTP method.
            target: path and query, percent-encoded.
            headers: further headers.
            body: bytes; or a descriptor whose content from its offset on is sent (a regular file by sendfile with
                its length, anything else in chunks); or an iterable of pieces, sent in chunks.
            on_bytes: called with the number of body bytes after each piece that was sent.

        Raises:
            Unreachable: the server is not there or went away.
        """
        stream = self._ready()
        size = len(body) if isinstance(body, bytes) else _rest_of_file(body) if isinstance(body, int) else None
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        if size is not None:
            lines.append(f"Content-Length: {size}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        elif method in {"POST", "PUT", "PATCH"}:
            lines.append("Content-Length: 0")
        head = os.fsencode("\r\n".join(lines) + "\r\n\r\n")
        try:
            if isinstance(body, bytes):
                stream.sendall(head + body)
            else:
                stream.sendall(head)
                if body is not None:
                    _send_body(stream, body, size, on_bytes)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a large body answers and closes; its answer says more than EPIPE does.
            self.keep = False
        return self._read_head(method)

    def _ready(self) -> Stream:
        if self._pending is not None and self._stream is not None and self.keep:
            self._pending.drain()
        self._pending = None
        # Readable between requests means that the server has closed (or broken the protocol).
        if self._stream is not None and (not self.keep or self._buffer or _is_readable(self._stream, 0)):
            self.close()
        if self._stream is None:
            self._stream = self._dial()
            self.keep = True
        return self._stream

    def _read_head(self, method: str) -> Response:
        while True:
            status_line = self.read_line()
            parts = status_line.split(None, 2)
            if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
                raise Internal("The server does not speak HTTP")
            status, headers, left = int(parts[1]), {}, _MAX_HEADER
            while line := self.read_line():
                left -= len(line)
                if left < 0:
                    raise Internal("The head of the server's answer has no end")
                key, _, value = os.fsdecode(line).partition(":")
                headers[key.strip().lower()] = value.strip()
            if status != 100:
                break
        if headers.get("connection", "").lower() == "close":
            self.keep = False
        has_body = method != "HEAD" and status >= 200 and status not in {204, 304}
        self._pending = Response(self, status, headers, has_body=has_body)
        return self._pending

    def read_line(self) -> bytes:
        """Return the next line without its end."""
        while (end := self._buffer.find(b"\n")) < 0:
            data = self._receive(_BLOCK)
            if not data or len(self._buffer) > _MAX_HEADER:
                self.close()
                raise Unreachable("The server closed the connection")
            self._buffer += data
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.rstrip(b"\r")

    def read_some(self, limit: int = _BLOCK) -> bytes:
        """Return up to `limit` bytes, none at the end of the stream."""
        if self._buffer:
            data, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return data
        return self._receive(min(limit, _BLOCK))

    def _receive(self, limit: int) -> bytes:
        assert self._stream is not None
        try:
            return self._stream.recv(limit)
        except ConnectionResetError:
            return b""

    def awaits(self, response: Response) -> bool:
        """Return whether the body of `response` may still arrive: no other request has been sent since."""
        return self._pending is response

    def wait_readable(self, timeout: float) -> bool:
        """Return whether an answer begins to arrive within `timeout` seconds. For `send_only`."""
        assert self._stream is not None
        return bool(self._buffer) or _is_readable(self._stream, timeout)

    def send_only(self, method: str, target: str) -> None:
        """Send a request without a body and leave its answer for `receive`, which tells of a server that has gone."""
        stream = self._ready()
        try:
            stream.sendall(os.fsencode(f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n\r\n"))
        except (BrokenPipeError, ConnectionResetError):
            self.keep = False

    def receive(self) -> Response:
        """Return the head of the answer to `send_only`."""
        return self._read_head("GET")

    def detach(self) -> tuple[Stream, bytes]:
        """Give the socket away after `101 Switching Protocols`, with the bytes already read behind the head."""
        assert self._stream is not None
        stream, rest = self._stream, self._buffer
        self._stream, self._buffer, self._pending = None, b"", None
        return stream, rest

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._buffer, self._pending = None, b"", None


def _is_readable(stream: Stream, timeout: float) -> bool:
    """Return whether data or the end arrives within `timeout` seconds."""
    if not isinstance(stream, Socket):
        return stream.readable(timeout)
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _size(text: str | bytes, base: int) -> int:
    try:
        size = int(text, base)
    except ValueError:
        size = -1
    if size < 0:
        raise Internal("The server does not speak HTTP: it gives a length that is none")
    return size


def _rest_of_file(fd: int) -> int | None:
    status = os.fstat(fd)
    return max(0, status.st_size - os.lseek(fd, 0, os.SEEK_CUR)) if stat.S_ISREG(status.st_mode) else None


def _read_blocks(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _BLOCK):
        yield data


def _send_body(
    stream: Stream, body: int | Iterable[bytes], size: int | None, on_bytes: Callable[[int], None] | None
) -> None:
    if isinstance(body, int) and size is not None and isinstance(stream, Socket):
        left = size
        while left:
            sent = os.sendfile(stream.fileno(), body, None, min(left, 1 << 22))
            if not sent:
                raise Internal("The file became shorter while it was being sent")
            left -= sent
            if on_bytes:
                on_bytes(sent)
        return
    for piece in _read_blocks(body) if isinstance(body, int) else body:
        if piece:
            stream.sendall(piece if size is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
            if on_bytes:
                on_bytes(len(piece))
    if size is None:
        stream.sendall(b"0\r\n\r\n")
