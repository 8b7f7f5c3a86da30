"""The API over a real unix socket, with real SQLite below the server's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pylxc.api.app import App
from pylxc.db.engine import Database
from pylxc.db.migrate import open_database
from pylxc.db.models import now
from pylxc.paths import Paths
from pylxc.services.certificate import ServerCertificate
from pylxc.services.events import EventBus
from pylxc.services.operations import Operations
from pylxc.services.projects.service import Projects
from pylxc.services.server import Server
from pylxc.services.services import Services
from pylxc.services.storage.service import StoragePools
from pylxc.services.warnings import Warnings


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


class Answer:
    """An HTTP answer, read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """The app on an event loop in a thread of its own."""

    def __init__(self, services: Services, path: str) -> None:
        self.path = path
        self.services = services
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.app = App(self.services)
        http_server = self.app.server()
        server = await self._loop.create_unix_server(http_server, path=self.path)
        self._ready.set()
        await self._end.wait()
        self.app.stopping.set()
        server.close()
        await http_server.shutdown(1)
        self.app.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def stop_accepting(self) -> None:
        done = threading.Event()

        def stop() -> None:
            self.app.stopping.set()
            done.set()

        self._loop.call_soon_threadsafe(stop)
        assert done.wait(5)

    def request(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        """Send one request; a `body` that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = _Connection(self.path)
        try:
            connection.request(method, path, data, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Return the metadata of a GET that must succeed."""
        answer = self.request("GET", path)
        assert answer.status == 200, answer.body
        return answer.json["metadata"]

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; return all that comes back until the server closes."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(self.path)
            chunks = []
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(data)
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    chunks.append(chunk)
            return b"".join(chunks)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(str(tmp_path / "database" / "pylxc.db"))
    yield database
    database.close()


@pytest.fixture
def services(tmp_path: Path, database: Database) -> Services:
    paths = Paths(str(tmp_path))
    events = EventBus()
    server = Server(
        database,
        ServerCertificate(paths),
        StoragePools(database, paths, events),
        events,
        stop=lambda _force: None,
    )
    warnings = Warnings(database, events, now)
    operations = Operations(events)
    projects = Projects(database, operations, events, lambda _name, _new: None)
    projects.create({"name": "other"})
    found = SimpleNamespace(events=events, operations=operations, server=server, warnings=warnings, projects=projects)
    return cast(Services, found)


@pytest.fixture
def api(services: Services, tmp_path: Path) -> Iterator[Api]:
    api = Api(services, str(tmp_path / "s"))
    yield api
    api.close()
