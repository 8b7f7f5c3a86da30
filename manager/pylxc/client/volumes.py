"""Custom volumes of a storage pool, and their snapshots."""

from __future__ import annotations

from pylxc.client.http import quote
from pylxc.client.named import Named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.client.client import Client
    from pylxc.client.operations import Operation


class Volumes(Named):
    """The custom volumes of one pool, in the client's project."""

    def __init__(self, client: Client, pool: str) -> None:
        super().__init__(client)
        self.path = f"/1.0/storage-pools/{quote(pool)}/volumes/custom"

    def copy(self, name: str, pool: str, source: str, *, volume_only: bool = False, refresh: bool = False) -> Operation:
        """Make the volume `name` as a copy, or bring one up to date.

        Args:
            name: the new volume.
            pool: where the source is.
            source: VOLUME or VOLUME/SNAPSHOT.
            volume_only: without the source's snapshots.
            refresh: the new volume may be there; what differs is copied.
        """
        given = {"type": "copy", "pool": pool, "name": source, "volume_only": volume_only, "refresh": refresh}
        return self._client.start("POST", self.path, {"name": name, "source": given})

    def move(self, name: str, pool: str, new: str = "") -> Operation:
        """Move a volume to another pool; instances and profiles follow."""
        return self._client.start("POST", self.url(name), {"name": new or name, "pool": pool})

    def state(self, name: str) -> dict[str, Any]:
        """Return the bytes that a volume takes and may take, 0 for no limit."""
        return dict(self._client.get(f"{self.url(name)}/state")["usage"])

    def snapshots(self, name: str) -> list[dict[str, Any]]:
        """Return a volume's snapshots, called VOLUME/SNAPSHOT, oldest first."""
        return list(self._client.get(f"{self.url(name)}/snapshots", recursion=1))

    def snapshot(self, name: str, snapshot: str = "", *, expires_at: str | None = None) -> Operation:
        """Take a snapshot; arguments as those of instances' snapshots."""
        return self._client.start("POST", f"{self.url(name)}/snapshots", {"name": snapshot, "expires_at": expires_at})

    def restore(self, name: str, snapshot: str) -> None:
        """Make a volume what a snapshot of it is.

        Raises:
            BadRequest: an instance runs with it.
        """
        self._client.request("PUT", self.url(name), {"restore": snapshot})

    def delete_snapshot(self, name: str, snapshot: str) -> Operation:
        """Delete a snapshot."""
        return self._client.start("DELETE", f"{self.url(name)}/snapshots/{quote(snapshot)}")

    def list(self) -> list[dict[str, Any]]:
        """Return the volumes, without their snapshots."""
        return [volume for volume in super().list() if "/" not in volume["name"]]
