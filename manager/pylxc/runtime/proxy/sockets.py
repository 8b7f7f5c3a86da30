"""The sockets of a proxy: those that it listens on, and where it connects to.

An endpoint is JSON: `kind` (tcp, udp or unix), `address` (an IP address; a path or `@` and an abstract name), `ports`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Endpoint = dict[str, Any]

_BACKLOG = 4096
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_IDLE_SECONDS = 60
"""After so long a silence the kernel asks whether the other side of a TCP connection is still there."""


class Target:
    """Where a proxy connects to."""

    __slots__ = ("address", "family", "kind", "text")

    def __init__(self, endpoint: Endpoint, port: int) -> None:
        self.kind: str = endpoint["kind"]
        self.text = describe(endpoint, port)
        if self.kind == "unix":
            self.family: int = socket.AF_UNIX
            self.address: Any = _unix_address(endpoint["address"])
        else:
            self.family = _family(endpoint["address"])
            self.address = (endpoint["address"], port)

    def open(self) -> socket.socket:
        """Return a socket for `address` that never blocks."""
        kind = socket.SOCK_DGRAM if self.kind == "udp" else socket.SOCK_STREAM
        return prepare(socket.socket(self.family, kind | socket.SOCK_NONBLOCK), self.kind)


def prepare(sock: socket.socket, kind: str) -> socket.socket:
    """Set a connection's options and return it."""
    if kind == "tcp":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    return sock


def reset_on_close(sock: socket.socket) -> None:
    """Have the other side of a TCP connection see an error instead of an orderly end."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def targets(connect: Endpoint, listeners: int) -> list[Target]:
    """Return the target of each of so many listeners: one for all, or one each."""
    ports = connect["ports"] or [0]
    found = [Target(connect, port) for port in ports]
    return found * listeners if len(found) == 1 else found


def listen(endpoint: Endpoint, owner: dict[str, Any], *, early: bool = False) -> list[socket.socket]:
    """Return a socket for every port of an endpoint, listening.

    Args:
        endpoint: where.
        owner: `uid`, `gid` and `mode` of a unix socket's file.
        early: listen on an address that is not there yet: a guest takes its own as it boots.

    Raises:
        BadRequest: it cannot be had; the message says which and why.
    """
    found: list[socket.socket] = []
    for port in endpoint["ports"] or [0]:
        try:
            found.append(_listen(endpoint, port, owner, early=early))
        except OSError as error:
            for sock in found:
                sock.close()
            raise BadRequest(f"cannot listen on {describe(endpoint, port)}: {error.strerror}") from error
    return found


def _listen(endpoint: Endpoint, port: int, owner: dict[str, Any], *, early: bool) -> socket.socket:
    kind, address = endpoint["kind"], endpoint["address"]
    if kind == "unix":
        return _listen_unix(address, owner)
    if address == "::":
        try:
            return _listen_ip(kind, address, port, early=early)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            address = "0.0.0.0"  # noqa: S104 - this side has IPv6 switched off
    return _listen_ip(kind, address, port, early=early)


def _listen_ip(kind: str, address: str, port: int, *, early: bool) -> socket.socket:
    family = _family(address)
    sock = socket.socket(family, (socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, early)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, early)
        if kind == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == "tcp":
            sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _listen_unix(path: str, owner: dict[str, Any]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if path.startswith("@"):
            sock.bind(_unix_address(path))
        else:
            _bind_file(sock, path, owner)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_file(sock: socket.socket, path: str, owner: dict[str, Any]) -> None:
    directory, name = os.path.split(path)
    # From here on there is one directory, whatever its owner puts in the place of the path meanwhile.
    os.chdir(directory)
    try:
        _remove_stale(name)
        # The file gets the mode of the socket: at no time can more connect to it than shall.
        os.fchmod(sock.fileno(), owner["mode"])
        umask = os.umask(0)
        sock.bind(name)
        os.umask(umask)
        os.chown(name, owner["uid"], owner["gid"], follow_symlinks=False)
    finally:
        os.chdir("/")


def _remove_stale(name: str) -> None:
    """Remove a unix socket that nobody listens on any more.

    Raises:
        OSError: EADDRINUSE when somebody does, or when it is no socket.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(name).st_mode):
            raise OSError(errno.EADDRINUSE, "the file exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        if sock.connect_ex(name) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(name)


def describe(endpoint: Endpoint, port: int) -> str:
    """Return an endpoint's address as its configuration has it."""
    kind, address = endpoint["kind"], endpoint["address"]
    if kind == "unix":
        return f"unix:{address}"
    return f"{kind}:[{address}]:{port}" if ":" in address else f"{kind}:{address}:{port}"


def proxy_header(client: socket.socket) -> bytes:
    """Return the line that tells a server who its client is. See: haproxy's proxy-protocol.txt, version 1."""
    if client.family == socket.AF_UNIX:
        return b"PROXY UNKNOWN\r\n"
    try:
        source, destination = client.getpeername(), client.getsockname()
    except OSError:  # it has gone already
        return b"PROXY UNKNOWN\r\n"
    addresses = [end[0].removeprefix("::ffff:") if "." in end[0] else end[0] for end in (source, destination)]
    family = "TCP4" if "." in addresses[0] else "TCP6"
    return f"PROXY {family} {addresses[0]} {addresses[1]} {source[1]} {destination[1]}\r\n".encode()


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _unix_address(path: str) -> str:
    return f"\0{path[1:]}" if path.startswith("@") else path
