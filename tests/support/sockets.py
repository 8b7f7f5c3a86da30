"""Sockets inside containers, and servers that a test runs in its own process."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from pylxc.kernel import namespaces
from tests.support.daemon import ROOT

_BIND = """
import os, socket, sys
from pylxc.kernel import namespaces
namespaces.setns(os.pidfd_open(int(sys.argv[1])), namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
os.umask(0o077)
socket.socket(fileno=int(sys.argv[2])).bind(sys.argv[3])
"""


def inside(pid: int, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket in the network namespace of a process."""
    made: list[socket.socket] = []

    def make() -> None:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        namespaces.setns(fd, namespaces.CLONE_NEWNET)
        os.close(fd)
        made.append(socket.socket(family, kind))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(20)
    return made[0]


def bound_inside(pid: int, path: str) -> socket.socket:
    """Return a unix stream socket that listens on a path of a container, its root's with mode 0700."""
    sock = socket.socket(socket.AF_UNIX)
    command = [sys.executable, "-c", _BIND, str(pid), str(sock.fileno()), path]
    subprocess.run(command, check=True, pass_fds=[sock.fileno()], env={"PYTHONPATH": str(ROOT / "manager")})
    sock.listen(4096)
    sock.settimeout(20)
    return sock


def listening(sock: socket.socket, address: tuple[str, int] | str) -> socket.socket:
    """Bind a stream socket, listen on it and return it."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.listen(4096)
    sock.settimeout(20)
    return sock


@contextlib.contextmanager
def serving(listener: socket.socket, serve: Callable[[socket.socket], object]) -> Iterator[None]:
    """Have a thread call `serve` with every connection, one after the other; the listener is closed at the end."""

    end_fd = os.eventfd(0)

    def run() -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(end_fd, select.POLLIN)
        while end_fd not in [fd for fd, _ in poll.poll()]:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.settimeout(20)
                serve(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        os.eventfd_write(end_fd, 1)
        thread.join()
        os.close(end_fd)
        listener.close()


def read_all(sock: socket.socket) -> bytes:
    """Return everything until the other side has ended."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def echo_all(connection: socket.socket) -> None:
    """Answer with all that was said, once the client has ended its side."""
    connection.sendall(read_all(connection))
