"""Exec as clients do it, byte by byte: the upgrade of `pylxc_exec_upgrade`, and LXD's websockets."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

from tests.support.daemon import ApiError, Daemon


class Direct:
    """An exec over the connection that asked for it."""

    def __init__(self, daemon: Daemon, instance: str, command: list[str], **body: Any) -> None:
        """Ask for it.

        Raises:
            ApiError: it was refused.
        """
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(f"{daemon.dir}/unix.socket")
        content = json.dumps({"command": command, **body}).encode()
        head = (
            f"POST /1.0/instances/{quote(instance)}/exec HTTP/1.1\r\nHost: pylxc\r\nUpgrade: pylxc-exec\r\n"
            f"Connection: Upgrade\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self.socket.sendall(head.encode() + content)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        lines = answer.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        if " 101 " not in lines[0]:
            body_text = b""
            while len(body_text) < int(headers["content-length"]):
                body_text += self.socket.recv(65536)
            self.socket.close()
            raise ApiError(int(lines[0].split()[1]), json.loads(body_text)["error"])
        self.operation = headers["location"]
        self._rest = b""

    def send_stdio(self, *fds: int) -> None:
        """Give it standard input, output and error."""
        socket.send_fds(self.socket, [b'{"fds":3}\n'], list(fds))

    def receive_terminal(self) -> int:
        """Return the master of its terminal."""
        self.socket.sendall(b'{"fds":0}\n')
        message, fds, _, _ = socket.recv_fds(self.socket, 4096, 1)
        line, self._rest = message.split(b"\n", 1)
        assert json.loads(line) == {"pty": True}
        return fds[0]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.socket.sendall(json.dumps({"signal": number}).encode() + b"\n")

    def result(self) -> dict[str, Any]:
        """Wait for its end."""
        while b"\n" not in self._rest:
            data = self.socket.recv(4096)
            assert data, "the connection ended without a result"
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        result: dict[str, Any] = json.loads(line)
        return result

    def close(self) -> None:
        """Go away."""
        self.socket.close()


def direct(
    daemon: Daemon, instance: str, command: list[str], data: bytes = b"", **body: Any
) -> tuple[dict[str, Any], bytes, bytes]:
    """Run a command to its end; return its result, standard output and standard error."""
    run = Direct(daemon, instance, command, **body)
    pipes = [os.pipe() for _ in range(3)]
    run.send_stdio(pipes[0][0], pipes[1][1], pipes[2][1])
    for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
        os.close(fd)
    outputs = [b"", b""]

    def write() -> None:
        with suppress(BrokenPipeError), open(pipes[0][1], "wb") as file:
            file.write(data)

    def read(number: int) -> None:
        with open(pipes[number + 1][0], "rb") as file:
            outputs[number] = file.read()

    threads = [threading.Thread(target=write)] + [threading.Thread(target=read, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    result = run.result()
    for thread in threads:
        thread.join(30)
    run.close()
    return result, outputs[0], outputs[1]


class Websockets:
    """An exec or console with LXD's websockets."""

    def __init__(self, daemon: Daemon, instance: str, what: str = "exec", **body: Any) -> None:
        self.daemon = daemon
        if what == "exec":
            body = {"wait-for-websocket": True, "interactive": False, "environment": {}, **body}
        answer = daemon._exchange("POST", f"/1.0/instances/{instance}/{what}", body, 30)
        self.operation: str = answer["operation"]
        self.fds: dict[str, str] = answer["metadata"]["metadata"]["fds"]
        self.open: dict[str, ClientConnection] = {}
        self._stack = ExitStack()

    def connect(self, name: str, secret: str = "") -> ClientConnection:
        """Connect one of the sockets."""
        uri = f"ws://pylxc{self.operation}/websocket?secret={secret or self.fds[name]}"
        connecting = unix_connect(f"{self.daemon.dir}/unix.socket", uri, compression=None, max_size=None)
        self.open[name] = self._stack.enter_context(connecting)
        return self.open[name]

    def connect_all(self) -> None:
        """Connect every socket."""
        for name in self.fds:
            self.connect(name)

    def read(self, name: str) -> bytes:
        """Return everything until the end of a stream: an empty text message, or a close."""
        data = b""
        with suppress(ConnectionClosed):
            while (message := self.open[name].recv(timeout=30)) != "":
                assert isinstance(message, bytes)
                data += message
        return data

    def read_until(self, name: str, what: bytes) -> bytes:
        """Return what comes until `what` has come."""
        data = b""
        while what not in data:
            message = self.open[name].recv(timeout=30)
            assert isinstance(message, bytes), (message, data)
            data += message
        return data

    def order(self, command: str, **args: Any) -> None:
        """Send a control message."""
        self.open["control"].send(json.dumps({"command": command, **args}))

    def wait(self) -> dict[str, Any]:
        """Return the operation once it has ended."""
        answer = self.daemon._exchange("GET", self.operation + "/wait?timeout=30", None, 40)
        operation: dict[str, Any] = answer["metadata"]
        return operation

    def close(self) -> None:
        """Close every socket."""
        self._stack.close()


def on_host(marker: str) -> list[int]:
    """Return the host's pids of the processes with `marker` among their arguments."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker.encode() in (directory / "cmdline").read_bytes().split(b"\0"):
                found.append(int(directory.name))
    return found
