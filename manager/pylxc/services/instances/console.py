"""The consoles of instances: attach, and the log of what they have shown."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from pylxc.db import instances
from pylxc.db.engine import Database
from pylxc.errors import BadRequest, NotFound
from pylxc.paths import Paths, storage_name
from pylxc.runtime.handle import Runtime
from pylxc.services.events import EventBus
from pylxc.services.operations import Operation, Operations
from pylxc.wire.instances import InstanceConsolePost

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylxc.services.operations import Connect

CONNECT_SECONDS = 5.0
"""How long the websockets of a console are waited for."""


class Relay(Protocol):
    """What carries bytes between a console and the client's websockets."""

    @property
    def connect(self) -> Connect:
        """Takes each websocket, see `Operations.start`."""

    def wait_connected(self, timeout: float) -> bool:
        """Block until the websockets that are needed are there; False when not within `timeout` seconds, or ended."""

    def carry(self, console: socket.socket, resize: Callable[[int, int], None]) -> None:
        """Carry until the client detaches or the console ends; `console` is the relay's from now on.

        Args:
            console: bytes both ways.
            resize: to be called, from any thread, with width and height in characters.
        """

    def finish(self) -> None:
        """End the carrying, from any thread; also when it has not begun."""


class InstanceConsole:
    """Consoles; thread-safe."""

    def __init__(
        self, database: Database, runtime: Runtime, operations: Operations, events: EventBus, paths: Paths
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._operations = operations
        self._events = events
        self._paths = paths

    def attach(self, project: str, name: str, body: InstanceConsolePost, relay: Relay) -> Operation:
        """Attach a client to the console; whoever was attached before is cut off.

        Raises:
            NotFound: no such instance.
            BadRequest: it does not run, or the request is invalid.
        """
        if (kind := body.get("type") or "console") != "console":
            raise BadRequest(f"Containers have no console of type {kind!r}")
        key = self._key(project, name)
        if self._runtime.get(key) is None:
            raise BadRequest("Instance is not running")

        def resize(width: int, height: int) -> None:
            self._runtime.console_resize(key, width, height)

        def run(operation: Operation) -> dict[str, Any] | None:
            try:
                if not relay.wait_connected(CONNECT_SECONDS):
                    operation.check_cancelled()
                    raise BadRequest("Timed out waiting for the websockets of the console")
                console = self._runtime.console_attach(key)
                self._events.lifecycle("instance-console", f"/1.0/instances/{name}", project=project)
                width, height = body.get("width", 0), body.get("height", 0)
                if 0 < width < 2**16 and 0 < height < 2**16:
                    resize(width, height)
                relay.carry(console, resize)
            finally:
                relay.finish()
            return None

        return self._operations.start(
            "Showing console",
            run,
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
            class_="websocket",
            sockets=("0", "control"),
            connect=relay.connect,
            on_cancel=relay.finish,
        )

    def log(self, project: str, name: str) -> bytes:
        """Return what the console has shown, the newest part of it; of a stopped instance what it last showed.

        Raises:
            NotFound: no such instance.
        """
        key = self._key(project, name)
        self._events.lifecycle("instance-console-retrieved", f"/1.0/instances/{name}", project=project)
        with suppress(NotFound):
            return self._runtime.console_log(key)
        with suppress(FileNotFoundError), open(self._log_file(key), "rb") as file:
            return file.read()
        return b""

    def clear(self, project: str, name: str) -> None:
        """Forget what the console has shown; raises like `log`."""
        key = self._key(project, name)
        with suppress(NotFound):
            self._runtime.console_clear(key)
        with suppress(FileNotFoundError):
            os.truncate(self._log_file(key), 0)
        self._events.lifecycle("instance-console-reset", f"/1.0/instances/{name}", project=project)

    def _log_file(self, key: str) -> str:
        return f"{self._paths.instance_logs(key)}/console.log"

    def _key(self, project: str, name: str) -> str:
        with self._database.reading() as session:
            instances.get(session, project, name)
        return storage_name(project, name)
