"""Connections to the guest API as they come out of a container: by users of its own."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from typing import Any

from tests.support.daemon import Daemon

_CONNECT = """
import socket, sys, time
result = socket.socket(fileno=int(sys.argv[1]))
for _ in range(int(sys.argv[3])):
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(sys.argv[3] == "1")
    for _ in range(50):
        try:
            made.connect(f"/proc/self/fd/{sys.argv[2]}/sock")
            break
        except BlockingIOError:
            time.sleep(0.01)
    else:
        break
    socket.send_fds(result, [b"x"], [made.fileno()])
    made.close()
"""


def connect(daemon: Daemon, name: str, *, uid: int = 0, count: int = 1, timeout: float = 30) -> list[socket.socket]:
    """Return connections to the socket that instance `name` sees, made by user `uid` of it.

    With a `count` of more than 1 there are fewer when more would have to wait to be let in.
    """
    config = daemon.request("GET", f"/1.0/instances/{name}")["config"]
    base = next(r["Hostid"] for r in json.loads(config["volatile.idmap.current"]) if r["Isuid"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(f"{daemon.dir}/run/devlxd/{name}", os.O_PATH)
    try:
        with ours, theirs:
            fds = (theirs.fileno(), directory)
            command = [sys.executable, "-I", "-S", "-c", _CONNECT, *map(str, fds), str(count)]
            with subprocess.Popen(command, user=base + uid, group=base + uid, pass_fds=fds) as child:
                theirs.close()
                made = []
                while True:
                    data, received, _, _ = socket.recv_fds(ours, 1, 1)
                    if not data:
                        break
                    made += [socket.socket(fileno=fd) for fd in received]
                assert child.wait(timeout) == 0
        for each in made:
            each.settimeout(timeout)
        return made
    finally:
        os.close(directory)


class GuestConnection(http.client.HTTPConnection):
    """An HTTP connection of a guest's user."""

    def __init__(self, daemon: Daemon, name: str, uid: int = 0) -> None:
        super().__init__("guest")
        (self.sock,) = connect(daemon, name, uid=uid)

    def connect(self) -> None:
        raise ConnectionError("the server has closed the connection")


def ask(daemon: Daemon, name: str, path: str, *, uid: int = 0, method: str = "GET") -> tuple[int, str, Any]:
    """Return status, content type and body (JSON decoded) of a request to the guest API."""
    connection = GuestConnection(daemon, name, uid)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read().decode()
        kind = response.headers.get_content_type()
        return response.status, kind, json.loads(body) if kind == "application/json" else body
    finally:
        connection.close()
