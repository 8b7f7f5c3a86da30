"""Snapshots of instances."""

from __future__ import annotations

from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.client.client import Client, Reply
    from pylxc.client.operations import Operation


class Snapshots:
    """The snapshots of the instances of the client's project; `name` is the instance's."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @staticmethod
    def url(name: str, *snapshot: str) -> str:
        """Return the path of an instance's snapshots, or of one of them."""
        return "/".join(["/1.0/instances", quote(name), "snapshots", *map(quote, snapshot)])

    def list(self, name: str) -> list[dict[str, Any]]:
        """Return the snapshots, oldest first."""
        return list(self._client.get(self.url(name), recursion=1))

    def read(self, name: str, snapshot: str) -> Reply:
        """Return one snapshot together with its etag.

        Raises:
            NotFound: there is none of that name.
        """
        return self._client.request("GET", self.url(name, snapshot))

    def create(
        self, name: str, snapshot: str = "", *, stateful: bool = False, expires_at: str | None = None
    ) -> Operation:
        """Take a snapshot.

        Args:
            name: the instance.
            snapshot: its name; the instance's pattern makes one when it is empty.
            stateful: with the memory of what runs.
            expires_at: RFC 3339; None takes the instance's own expiry.
        """
        body = {"name": snapshot, "stateful": stateful, "expires_at": expires_at}
        return self._client.start("POST", self.url(name), body)

    def update(self, name: str, snapshot: str, fields: dict[str, Any], *, if_match: str = "") -> Operation:
        """Change `expires_at`."""
        return self._client.start("PUT", self.url(name, snapshot), fields, if_match=if_match)

    def rename(self, name: str, snapshot: str, new: str) -> Operation:
        """Rename a snapshot."""
        return self._client.start("POST", self.url(name, snapshot), {"name": new})

    def delete(self, name: str, snapshot: str) -> Operation:
        """Delete a snapshot."""
        return self._client.start("DELETE", self.url(name, snapshot))
