"""The API as it is on the wire: whole answers with their headers, and the events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from websockets.sync.client import ClientConnection, unix_connect

from tests.support.daemon import Daemon, UnixConnection, unique

KEYS = {"type", "status", "status_code", "operation", "error_code", "error", "metadata"}
"""What every envelope has."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `headers` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def type(self) -> str:
        """The envelope's type, "raw" for a body that is none."""
        if not self.headers.get("content-type", "").startswith("application/json") or not self.body:
            return "raw"
        return str(self.json["type"])

    @property
    def metadata(self) -> Any:
        """The envelope's metadata."""
        return self.json["metadata"]


def ask(daemon: Daemon, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = UnixConnection(f"{daemon.dir}/unix.socket", 60)
    try:
        connection.request(method, path, data, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def ended(daemon: Daemon, answer: Answer) -> Any:
    """Return an operation when it has ended."""
    found = ask(daemon, "GET", f"{answer.json['operation']}/wait?timeout=60").metadata
    assert found["status_code"] >= 200, found
    return found


class Listener:
    """A client that listens for events."""

    def __init__(self, daemon: Daemon, websocket: ClientConnection) -> None:
        self.daemon = daemon
        self._websocket = websocket

    def event(self, timeout: float = 20) -> dict[str, Any]:
        """Return the next event."""
        found: dict[str, Any] = json.loads(self._websocket.recv(timeout))
        return found

    def lifecycle(self) -> list[dict[str, Any]]:
        """Return the lifecycle events of what has been done up to now: up to one of a change that this makes."""
        mark = unique("mark")
        self.daemon.request("PATCH", "/1.0", {"config": {"user.mark": mark}})
        found: list[dict[str, Any]] = []
        while (event := self.event())["metadata"].get("context") != {"user.mark": mark}:
            found.append(event)
        return found


@contextmanager
def listening(daemon: Daemon, query: str = "type=lifecycle&all-projects=true") -> Iterator[Listener]:
    """Listen for events."""
    address = f"ws://pylxc/1.0/events?{query}"
    with unix_connect(f"{daemon.dir}/unix.socket", address, max_size=None) as websocket:
        yield Listener(daemon, websocket)
