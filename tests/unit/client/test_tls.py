"""A TLS connection that two threads share."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylxc.client.tls import SharedSocket, open_tls
from tests.support.clients import Identity, context

SECONDS = 20


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[[], tuple[SharedSocket, ssl.SSLSocket]]]:
    """Return what makes connections: the client's end, which has tickets yet to read, and the server's."""
    identity = Identity(tmp_path, "server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(identity.certificate_file, identity.key_file)
    ends: list[socket.socket | SharedSocket] = []

    def make() -> tuple[SharedSocket, ssl.SSLSocket]:
        near, far = socket.socketpair()
        far.settimeout(SECONDS)
        server = serving.wrap_socket(far, server_side=True, do_handshake_on_connect=False)
        handshake = threading.Thread(target=server.do_handshake)
        handshake.start()
        client = SharedSocket(context().wrap_socket(near, server_hostname="server"))
        handshake.join()
        client.settimeout(SECONDS)
        ends.extend((client, server))
        return client, server

    yield make
    for end in ends:
        end.close()


def test_writes_while_another_thread_reads(pair: Callable[[], tuple[SharedSocket, ssl.SSLSocket]]) -> None:
    for _ in range(50):
        client, server = pair()
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(client.recv(100)))  # noqa: B023  joined below
        reader.start()  # finds tickets, and waits for more
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        server.sendall(b"answer")
        reader.join()
        assert said == [b"answer"]


def test_both_ways_at_once(pair: Callable[[], tuple[SharedSocket, ssl.SSLSocket]]) -> None:
    client, server = pair()
    data = os.urandom(4 << 20)

    def echo() -> None:
        left = len(data)
        while left:
            block = server.recv(left)
            server.sendall(block)
            left -= len(block)

    threads = [threading.Thread(target=echo), threading.Thread(target=client.sendall, args=(data,))]
    for thread in threads:
        thread.start()
    back = bytearray()
    while len(back) < len(data):
        back += client.recv(1 << 16)
    for thread in threads:
        thread.join()
    assert back == data


def test_a_time_limit(pair: Callable[[], tuple[SharedSocket, ssl.SSLSocket]]) -> None:
    client, _ = pair()
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(64 << 20))


def test_a_host_that_has_gone_is_noticed(tmp_path: Path) -> None:
    identity = Identity(tmp_path, "server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(identity.certificate_file, identity.key_file)

    def serve() -> None:
        connection, _ = listener.accept()
        with serving.wrap_socket(connection, server_side=True) as server:
            server.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with open_tls(f"https://127.0.0.1:{listener.getsockname()[1]}", context()) as client:
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        thread.join()


def test_close_wakes_the_reader(pair: Callable[[], tuple[SharedSocket, ssl.SSLSocket]]) -> None:
    client, server = pair()
    ended = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):  # as when it comes too late to begin
            assert client.recv(1) == b""
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    client.close()
    assert ended.wait(SECONDS)
    assert server.recv(1) == b""
