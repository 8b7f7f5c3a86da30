"""An HTTP proxy that tunnels, on loopback of a network namespace."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support.namespace import NetworkNamespace
from tests.support.webserver import listen


class Proxy:
    """Accepts CONNECT.

    Attributes:
        address: HOST:PORT.
        asked: the request line and the Proxy-Authorization of each tunnel.
    """

    def __init__(self, netns: NetworkNamespace) -> None:
        self.asked: list[tuple[str, str]] = []
        self._netns = netns
        self._socket = listen("127.0.0.1", netns)
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._tunnel, args=(connection,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        line, *fields = head.decode().split("\r\n")
        login = next((f.partition(": ")[2] for f in fields if f.lower().startswith("proxy-authorization")), "")
        self.asked.append((line, login))
        host, _, port = line.split()[1].rpartition(":")
        with self._netns.entered():
            server = socket.create_connection((host, int(port)), 10)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()
        client.close()
        server.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
