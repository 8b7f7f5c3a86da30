from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylxc.client.client import Client
from pylxc.client.http import Connection, Unreachable, connect_unix, quote, with_query
from pylxc.client.operations import Operation
from pylxc.errors import Internal, NotFound

Handler = Callable[[socket.socket], None]


class Server:
    """Serves one handler per connection on a unix socket; keeps what it received."""

    def __init__(self, path: str, handlers: list[Handler]) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, args=(handlers,))
        self._thread.start()

    def _serve(self, handlers: list[Handler]) -> None:
        for handler in handlers:
            connection, _ = self._listener.accept()
            with connection:
                handler(connection)

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Connection]]:
    servers: list[Server] = []
    connections: list[Connection] = []

    def start(*handlers: Handler) -> Connection:
        servers.append(Server(str(tmp_path / "socket"), list(handlers)))
        connections.append(Connection(lambda: connect_unix(servers[-1].path)))
        return connections[-1]

    yield start
    for connection in connections:
        connection.close()
    for server in servers:
        server.close()


def receive_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1)
    return data


def answer(connection: socket.socket, body: bytes, head: str = "200 OK", *more: str) -> None:
    lines = [f"HTTP/1.1 {head}", f"Content-Length: {len(body)}", *more]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def test_keep_alive_and_what_is_left_of_a_body(serve: Callable[..., Connection]) -> None:
    def handler(connection: socket.socket) -> None:
        for body in (b"x" * 500_000, b"second"):
            receive_head(connection)
            answer(connection, body)

    connection = serve(handler)
    connection.request("GET", "/a")  # nobody reads this one's body
    assert connection.request("GET", "/b").read() == b"second"


def test_chunked_answer(serve: Callable[..., Connection]) -> None:
    def handler(connection: socket.socket) -> None:
        receive_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"5\r\nhel", b"lo\r\n1;ext=1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"):
            connection.sendall(piece)
        receive_head(connection)
        answer(connection, b"next")

    connection = serve(handler)
    assert connection.request("GET", "/").read() == b"hello!"
    assert connection.request("GET", "/").read() == b"next"


def test_a_connection_that_the_server_closed_is_opened_again(serve: Callable[..., Connection]) -> None:
    closed = threading.Event()

    def first(connection: socket.socket) -> None:
        receive_head(connection)
        answer(connection, b"one")
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    def second(connection: socket.socket) -> None:
        receive_head(connection)
        answer(connection, b"two")

    connection = serve(first, second)
    assert connection.request("GET", "/").read() == b"one"
    assert closed.wait(10)
    assert connection.request("GET", "/").read() == b"two"


def test_bodies_of_every_kind(serve: Callable[..., Connection], tmp_path: Path) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def handler(connection: socket.socket) -> None:
        for _ in range(3):
            head = receive_head(connection)
            body = b""
            if b"Content-Length: 300000" in head:
                while len(body) < 300_000:
                    body += connection.recv(65536)
            else:
                while not body.endswith(b"0\r\n\r\n"):
                    body += connection.recv(65536)
            seen.append((head, body))
            answer(connection, b"")

    connection = serve(handler)
    file = tmp_path / "file"
    file.write_bytes(b"f" * 300_000)
    counted: list[int] = []
    with file.open("rb") as opened:
        connection.request("POST", "/", body=opened.fileno(), on_bytes=counted.append)
    read_end, write_end = os.pipe()
    os.write(write_end, b"piped")
    os.close(write_end)
    connection.request("POST", "/", body=read_end)
    os.close(read_end)
    connection.request("POST", "/", body=iter([b"ab", b"", b"c"]))
    connection.close()
    assert (seen[0][1], sum(counted)) == (b"f" * 300_000, 300_000)
    assert seen[1][1] == b"5\r\npiped\r\n0\r\n\r\n"
    assert seen[2][1] == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


def test_the_answer_to_a_refused_upload_is_read(serve: Callable[..., Connection], tmp_path: Path) -> None:
    def handler(connection: socket.socket) -> None:
        receive_head(connection)
        answer(connection, b"no", "413 Too Large", "Connection: close")

    connection = serve(handler)
    file = tmp_path / "file"
    with file.open("w+b") as opened:
        opened.truncate(64 << 20)
        response = connection.request("POST", "/", body=opened.fileno())
    assert (response.status, response.read()) == (413, b"no")


def test_errors(serve: Callable[..., Connection], tmp_path: Path) -> None:
    def handler(connection: socket.socket) -> None:
        receive_head(connection)
        answer(connection, b'{"type":"error","error":"Instance not found","error_code":404}', "404 Not Found")
        receive_head(connection)
        answer(connection, b"<html>", "500 Oops")
        receive_head(connection)
        answer(connection, b"not json")

    serve(handler)
    client = Client(str(tmp_path / "socket"))
    with pytest.raises(NotFound, match=r"^Instance not found$"):
        client.get("/1.0/instances/x")
    with pytest.raises(Internal, match="500"):
        client.get("/")
    with pytest.raises(Internal, match="JSON"):
        client.get("/")
    client.close()


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_a_server_that_goes_away(serve: Callable[..., Connection], reply: bytes) -> None:
    def handler(connection: socket.socket) -> None:
        receive_head(connection)
        connection.sendall(reply)

    with pytest.raises(Unreachable):
        serve(handler).request("GET", "/").read()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
    ],
    ids=["words", "negative", "chunk", "head", "list", "deep"],
)
def test_a_server_that_makes_no_sense(serve: Callable[..., Connection], tmp_path: Path, reply: bytes) -> None:
    def handler(connection: socket.socket) -> None:
        receive_head(connection)
        with contextlib.suppress(ConnectionError):
            connection.sendall(reply)

    serve(handler)
    with Client(str(tmp_path / "socket")) as client, pytest.raises(Internal):
        client.get("/1.0")


def test_what_answers_in_place_of_an_operation(serve: Callable[..., Connection], tmp_path: Path) -> None:
    def handler(connection: socket.socket) -> None:
        receive_head(connection)
        answer(connection, b"<html>", "502 Bad Gateway")
        receive_head(connection)
        answer(connection, b'{"type":"sync","metadata":[]}')

    serve(handler)
    with Client(str(tmp_path / "socket")) as client:
        for text in ("502", "no operation"):
            with pytest.raises(Internal, match=text):
                Operation(client, {"id": "x", "status_code": 103}).wait()


def test_a_server_that_goes_while_it_is_asked() -> None:
    near, far = socket.socketpair()
    far.close()
    connection = Connection(lambda: near)
    connection.send_only("GET", "/")
    with pytest.raises(Unreachable):
        connection.receive()


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="No such file"):
        Client(str(tmp_path / "none")).get("/1.0")


def test_quoting() -> None:
    assert quote("ubuntu/22.04 é~") == "ubuntu%2F22.04%20%C3%A9~"
    assert with_query("/a", {"path": "/x y", "n": 1}) == "/a?path=%2Fx%20y&n=1"
    assert Client("/x", project="p").target("/1.0/profiles") == "/1.0/profiles?project=p"
