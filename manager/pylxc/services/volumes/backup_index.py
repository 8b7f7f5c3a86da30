"""index.yaml of backups of custom volumes. See: LXD doc backup, the layout of LXD 5.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylxc.db import models
from pylxc.errors import BadRequest, NotSupported
from pylxc.services.backups import document
from pylxc.services.unarchive import Shift
from pylxc.services.volumes.store import checked
from pylxc.wire.check import check
from pylxc.wire.storage import StorageVolume, StorageVolumeSnapshot, StorageVolumesPost

_SHIFTED = "volatile.idmap.last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A checked index.

    Attributes:
        head: what every index begins with.
        config: the volume's configuration.
        description: its description.
        shift: how its ids were shifted on the disk.
        snapshots: those in it, oldest first.
    """

    head: document.Head
    config: models.Config
    description: str
    shift: Shift | None
    snapshots: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot of an index: its row, but for the volume, and how its ids were shifted on the disk."""

    row: models.VolumeSnapshot
    shift: Shift | None


def index(volume: StorageVolume, pool: dict[str, Any], snapshots: Sequence[StorageVolumeSnapshot]) -> dict[str, Any]:
    """Return what an index.yaml says of a volume, its pool and the snapshots that go with it, as the wire has them."""
    config = {
        "volume": {**volume, "used_by": []},
        "volume_snapshots": snapshots,
    }
    return document.index("custom", volume["name"], pool, [snapshot["name"] for snapshot in snapshots], config)


def parse(content: bytes) -> Index:
    """Check the index.yaml of a backup.

    Raises:
        BadRequest: it is malformed, or of something that is no volume.
        NotSupported: it is of a volume that cannot be here.
    """
    return document.parse(content, "backup", "index.yaml", _from_index)


def _from_index(data: dict[str, Any]) -> Index:
    head = document.head(data, "custom")
    volume = data["config"]["volume"]
    if volume.get("content_type", "filesystem") != "filesystem":
        raise NotSupported("it is of a block volume")
    found = check({key: volume.get(key) for key in ("config", "description")}, StorageVolumesPost)
    snapshots = document.with_config(head.snapshots, data["config"].get("volume_snapshots") or [])
    return Index(
        head=head,
        config=checked(found.get("config", {})),
        description=found.get("description", ""),
        shift=document.shift(found.get("config", {}).get(_SHIFTED)),
        snapshots=tuple(_snapshot(one) for one in snapshots),
    )


def _snapshot(given: dict[str, Any]) -> Snapshot:
    found = check({key: given.get(key) for key in ("config", "description")}, StorageVolumesPost)
    try:
        row = models.VolumeSnapshot(
            name=given["name"],
            description=found.get("description", ""),
            config=checked(found.get("config", {})),
            expires_at=document.moment(given.get("expires_at")),
        )
        if created := document.moment(given.get("created_at")):
            row.created_at = created
    except ValueError as error:
        raise BadRequest(f"snapshot {given['name']!r} is malformed: {error}") from error
    return Snapshot(row=row, shift=document.shift(found.get("config", {}).get(_SHIFTED)))
