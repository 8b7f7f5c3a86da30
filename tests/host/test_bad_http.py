"""What is no HTTP, or HTTP of two minds, is answered or cut off at once, and does nothing."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from tests.host.test_bad_input import settled
from tests.support.daemon import Daemon

SECONDS = 30.0
BUILT_IN = {f"/1.0/profiles/{name}" for name in ("default", "isolated", "lan", "nesting", "small")}
CREATE = b'{"name": "smuggled"}'
SMUGGLED = b"POST /1.0/profiles HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(CREATE), CREATE)


def post(
    headers: bytes, body: bytes = b"", *, path: bytes = b"/1.0/operations/x", version: bytes = b"HTTP/1.1"
) -> bytes:
    return b"POST %b %b\r\nHost: x\r\n%b\r\n%b" % (path, version, headers, body)


UNCLEAR = {
    "length and chunks": post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 500\r\n", b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 0\r\nContent-Length: 500\r\n", SMUGGLED),
    "a list of lengths": post(b"Content-Length: 0, 500\r\n", SMUGGLED),
    "a signed length": post(b"Content-Length: +0\r\n", SMUGGLED),
    "a negative length": post(b"Content-Length: -1\r\n", SMUGGLED),
    "a length in hex": post(b"Content-Length: 0x0\r\n", SMUGGLED),
    "a length with a space": post(b"Content-Length : 0\r\n", SMUGGLED),
    "a length of digits that are not ASCII": post(b"Content-Length: \xd9\xa0\r\n", SMUGGLED),
    "a length without end": post(b"Content-Length: " + b"9" * 5000 + b"\r\n", SMUGGLED),
    "a folded header": post(b"X: a\r\n b\r\nContent-Length:\r\n 0\r\n", SMUGGLED),
    "a coding that is almost chunked": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "a coding with a tab": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "codings in the wrong order": post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunks in HTTP/1.0": post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED, version=b"HTTP/1.0"),
    "a chunk's size that is none": post(b"Transfer-Encoding: chunked\r\n", b"ZZ\r\n" + SMUGGLED),
    "a negative chunk": post(b"Transfer-Encoding: chunked\r\n", b"-1\r\n" + SMUGGLED),
    "a huge chunk": post(b"Transfer-Encoding: chunked\r\n", b"F" * 40 + b"\r\n" + SMUGGLED),
    "a chunk without its end": post(b"Transfer-Encoding: chunked\r\n", b"1\r\naXX" + SMUGGLED),
    "a chunk with an endless extension": post(b"Transfer-Encoding: chunked\r\n", b"1;" + b"a" * (1 << 20)),
    "a line break in a header": post(b"X: a\nContent-Length: 500\r\n", SMUGGLED),
    "a zero byte in a header": post(b"X: a\0b\r\n", SMUGGLED),
    "a header without a name": post(b": a\r\n", SMUGGLED),
    "a header without a colon": post(b"nonsense\r\n", SMUGGLED),
}
"""What two readers could read in two ways: whatever follows is not to be taken for a request."""

BROKEN = {
    "nothing": b"",
    "a line break": b"\r\n\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c403036f6e6c7920612074657374") + b"\0" * 200,
    "an old protocol": b"GET /1.0\r\n",
    "a new protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that is none": b"GET /1.0 HTTP/9.99\r\n\r\n",
    "a method in lower case": b"get /1.0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long method": b"A" * 100_000 + b" /1.0 HTTP/1.1\r\n\r\n",
    "a long path": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long header": post(b"X: " + b"a" * 1_000_000 + b"\r\n"),
    "many headers": post(b"".join(b"X-%d: a\r\n" % number for number in range(50_000))),
    "no path": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is none": b"GET nonsense HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path of an IPv6 address that is none": b"GET http://[::1/1.0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a port that is none": b"GET http://x:99999999/1.0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in a path": b"GET /1.0/\xff\xfe\x80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a request": b"GET /1.0 HTTP/1.1\r\nHos",
    "half a body": post(b"Content-Length: 1000\r\n", CREATE, path=b"/1.0/profiles"),
    "half a chunk": post(b"Transfer-Encoding: chunked\r\n", b"14\r\n" + CREATE[:-3], path=b"/1.0/profiles"),
    "half of an image": post(b"Content-Length: 1000000\r\n", b"x" * 5000, path=b"/1.0/images"),
    "half of a backup": post(
        b"Content-Length: 1000000\r\nContent-Type: application/octet-stream\r\n", b"x" * 5000, path=b"/1.0/instances"
    ),
    "a multipart body without an end": post(
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 60\r\n",
        b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n',
        path=b"/1.0/images",
    ),
    "a websocket of no version": b"GET /1.0/events HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a websocket without a key": b"GET /1.0/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
}


@pytest.fixture(scope="module")
def host(module_daemon: Daemon) -> Iterator[Daemon]:
    yield module_daemon
    assert set(module_daemon.request("GET", "/1.0/profiles")) == BUILT_IN
    assert "Traceback" not in module_daemon.logs()


def talk(daemon: Daemon, data: bytes, *, listen_first: bool = False) -> bytes:
    """Send bytes and that no more will come; return all that comes until the other side closes, in time.

    Args:
        daemon: whom to talk to.
        data: what to say.
        listen_first: hear the beginning of an answer before saying that no more will come.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(f"{daemon.dir}/unix.socket")
        parts = []
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            if listen_first:
                parts.append(connection.recv(65536))
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def statuses(answers: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", answers, re.MULTILINE)]


@pytest.mark.parametrize("data", UNCLEAR.values(), ids=UNCLEAR)
def test_nothing_is_smuggled(host: Daemon, data: bytes) -> None:
    found = statuses(talk(host, data, listen_first=True))
    assert 201 not in found, found
    assert found, "nothing was said"
    assert found[-1] in (400, 404, 431, 501), found
    assert host.request("GET", "/1.0/profiles/default")


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_cut_off(host: Daemon, data: bytes) -> None:
    for status in statuses(talk(host, data)):
        assert status in (101, *range(400, 500)), status
    assert host.request("GET", "/1.0/profiles/default")


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Return a request with some bytes changed, left out, doubled or put in."""
    chance: Random = draw(st.randoms(use_true_random=False))
    data = bytearray(post(b"Content-Length: %d\r\nX-LXD-type: file\r\n" % len(CREATE), CREATE, path=b"/1.0/profiles"))
    for _ in range(chance.randrange(1, 6)):
        where = chance.randrange(len(data))
        length = chance.randrange(1, 20)
        piece = bytes(data[where : where + length])
        data[where : where + length] = chance.choice(
            (
                b"",
                piece * 2,
                b"\r\n",
                b"\0",
                b"\xff",
                b" ",
                b":",
                b"\n",
                b"Transfer-Encoding: chunked\r\n",
                chance.randbytes(length),
            )
        )
    return bytes(data)


@settled(200)
@given(data=spoilt())
def test_spoilt_requests(host: Daemon, data: bytes) -> None:
    found = statuses(talk(host, data))
    assert all(status < 500 or status == 501 for status in found), found
    for url in host.request("GET", "/1.0/profiles"):  # what is made is not always told: the client has gone by then
        if url not in BUILT_IN:
            host.request("DELETE", url)


@pytest.mark.parametrize(
    "frame", ["x" * (1 << 20), b"\0" * (1 << 20), "{" * 1000, b"\xff\xfe"], ids=["text", "bytes", "short", "few"]
)
def test_listeners_that_talk(host: Daemon, frame: str | bytes) -> None:
    """What a listener for events says is nobody's business; too much of it ends the connection."""
    with unix_connect(f"{host.dir}/unix.socket", "ws://x/1.0/events") as websocket:
        with contextlib.suppress(ConnectionClosed):
            websocket.send(frame)
        if len(frame) > 1 << 16:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(1000):
                    websocket.recv(SECONDS)
            assert websocket.close_code is not None
