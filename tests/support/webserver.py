"""A web server of static files over TLS that can be told to misbehave."""

from __future__ import annotations

import contextlib
import email.utils
import fnmatch
import mmap
import os
import socket
import ssl
import struct
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.namespace import NetworkNamespace
from tests.support.tls import Authority

_CHUNK = 1 << 16

Buffer = bytes | memoryview


@dataclass
class Fault:
    """How requests whose path fits `pattern` are answered wrongly, `times` times.

    Attributes:
        status: answer this status and no body.
        redirect: answer 302 and this Location.
        body: answer this in place of the file.
        cut: send so many bytes of what was asked for and break the connection off.
        pace: wait so many seconds after each 64 KiB, or until `released`.
        hang: send so many bytes of what was asked for, then nothing until `released`.
        short: send a valid answer whose body ends so many bytes too early.
        corrupt: change a byte in the middle.
        no_range: ignore Range, and give no validators.
        changed: claim that the file is another one than before (an ETag of its own) and ignore Range.
    """

    pattern: str
    times: int = 1 << 30
    status: int = 0
    redirect: str = ""
    body: bytes | None = None
    cut: int | None = None
    pace: float = 0
    hang: int | None = None
    short: int = 0
    corrupt: bool = False
    no_range: bool = False
    changed: bool = False
    released: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Request:
    """A request that came; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class WebServer:
    """Serves the files below `root` at `url`, in threads of this process.

    Args:
        root: what is served.
        authority: whose key pair it uses; None serves plain HTTP.
        netns: the network namespace to listen in; None is the caller's.
        address: what it listens on.

    Attributes:
        requests: what was asked, in order.
        headers: headers added to answers, by path.
    """

    def __init__(
        self, root: Path, authority: Authority | None, netns: NetworkNamespace | None, address: str = "127.0.0.1"
    ) -> None:
        self.root = root
        self.requests: list[Request] = []
        self.headers: dict[str, dict[str, str]] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._tls = authority.context() if authority else None
        self._server = _Server(self, listen(address, netns), self._tls)
        port = self._server.socket.getsockname()[1]
        self.url = f"{'https' if authority else 'http'}://{address}:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def fault(self, pattern: str, **how: Any) -> Fault:
        """Misbehave at paths that fit `pattern` (as in the shell) from now on; see `Fault`."""
        fault = Fault(pattern, **how)
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Behave well again, and forget the requests."""
        with self._lock:
            faults, self._faults = self._faults, []
            self.requests.clear()
        for fault in faults:
            fault.released.set()

    def paths(self) -> list[str]:
        """Return the paths that were asked for."""
        return [request.path for request in self.requests]

    def close(self) -> None:
        """Stop."""
        self.heal()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take_fault(self, path: str) -> Fault:
        """Return the fault that is due at `path`, one without effect when none is."""
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fnmatch.fnmatch(path, fault.pattern):
                    fault.times -= 1
                    return fault
        return Fault("")


def listen(address: str, netns: NetworkNamespace | None) -> socket.socket:
    """Return a socket that listens on a free port in a network namespace."""
    with netns.entered() if netns else contextlib.nullcontext():
        return socket.create_server((address, 0), backlog=64)


def _mapped(file: Path) -> bytes | mmap.mmap:
    """Return a file's content, read as it is sent."""
    if not file.is_file() or not file.stat().st_size:
        return b""
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, web: WebServer, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.web = web
        self.tls = tls
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)  # in the connection's own thread
        try:
            super().finish_request(request, client_address)
        finally:
            with contextlib.suppress(OSError):
                request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        web = self.server.web
        path = urllib.parse.unquote(self.path.partition("?")[0])
        web.requests.append(Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        fault = web.take_fault(path)
        if fault.redirect or fault.status:
            headers = {"Location": fault.redirect} if fault.redirect else {}
            self._send(302 if fault.redirect else fault.status, headers, b"")
            return
        file = web.root / path.lstrip("/")
        if fault.body is None and path not in web.headers and not file.is_file():
            self._send(404, {}, b"")
        else:
            self._send_file(path, file, fault)

    def _send_file(self, path: str, file: Path, fault: Fault) -> None:
        extra = self.server.web.headers.get(path, {})
        content = memoryview(fault.body if fault.body is not None else _mapped(file))
        headers = {**extra, **(self._validators(file, fault) if fault.body is None and file.is_file() else {})}
        if fault.corrupt:
            changed = bytearray(content)
            changed[len(changed) // 2] ^= 1
            content = memoryview(changed)
        if "ETag" in headers and self.headers.get("If-None-Match") == headers["ETag"]:
            self._send(304, headers, b"")
            return
        start = 0 if fault.no_range or fault.changed else self._range_start(headers)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, headers, content[start:], fault)

    def _validators(self, file: Path, fault: Fault) -> dict[str, str]:
        if fault.no_range:
            return {}
        if fault.changed:
            return {"ETag": f'"{os.urandom(8).hex()}"'}
        status = file.stat()
        moment = email.utils.formatdate(status.st_mtime, usegmt=True)
        return {"ETag": f'"{status.st_ino}-{status.st_mtime_ns}"', "Last-Modified": moment, "Accept-Ranges": "bytes"}

    def _range_start(self, headers: dict[str, str]) -> int:
        unit, _, first = self.headers.get("Range", "").partition("=")
        condition = self.headers.get("If-Range")
        if unit != "bytes" or condition not in (None, headers.get("ETag"), headers.get("Last-Modified")):
            return 0
        return int(first.partition("-")[0])

    def _send(self, status: int, headers: dict[str, str], content: Buffer, fault: Fault | None = None) -> None:
        fault = fault or Fault("")
        body = content[: len(content) - fault.short]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD" or status == 304:
            return
        stop = fault.cut if fault.cut is not None else fault.hang if fault.hang is not None else len(body)
        for offset in range(0, min(stop, len(body)), _CHUNK):
            self.wfile.write(body[offset : min(offset + _CHUNK, stop)])
            if fault.pace:
                fault.released.wait(fault.pace)
        if fault.cut is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault.hang is not None:
            fault.released.wait(120)
            self.close_connection = True
