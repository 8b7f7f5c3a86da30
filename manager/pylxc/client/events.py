"""Events of the server, by websocket."""

from __future__ import annotations

from pylxc.client import codec
from pylxc.client.exec_websocket import open_websocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pylxc.client.client import Client


class Events:
    """The server's events from now on; a context manager, and an iterator over event objects.

    Args:
        client: the server and the project.
        types: "operation", "lifecycle", "logging"; all of them when empty.
        all_projects: events of every project.
    """

    def __init__(self, client: Client, types: tuple[str, ...] = (), *, all_projects: bool = False) -> None:
        query: dict[str, str | int] = {"type": ",".join(types)} if types else {}
        if all_projects:
            query["all-projects"] = "true"
        self._socket = open_websocket(client, client.target("/1.0/events", query))

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from websockets.exceptions import ConnectionClosed

        try:
            for message in self._socket:
                yield codec.loads(message if isinstance(message, str) else message.decode())
        except ConnectionClosed:
            return

    def close(self) -> None:
        """Stop listening; an iteration in another thread ends."""
        self._socket.close()
