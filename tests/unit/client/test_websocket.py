"""Streams over websockets, from a server of this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection
from websockets.sync.server import ServerConnection, unix_serve

from pylxc.client.client import Client
from pylxc.client.exec_websocket import Receiver, open_websocket


def _say(connection: ServerConnection) -> None:
    connection.send(b"said")
    connection.send("")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[ClientConnection]:
    path = str(tmp_path / "socket")
    with unix_serve(_say, path) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with open_websocket(Client(path), "/") as found:
            yield found
        server.shutdown()
        thread.join()


def test_neither_side_has_to_answer_in_time(connection: ClientConnection) -> None:
    """A command that does not read its input, or a pager that shows a page, keeps a ping from being answered."""
    assert connection.ping_interval is None


def test_what_cannot_be_written_is_an_error(connection: ClientConnection) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    receiver = Receiver(connection, fd)
    receiver.start()
    receiver.join()
    os.close(fd)
    assert receiver.error is not None
    assert receiver.error.strerror == "No space left on device"
