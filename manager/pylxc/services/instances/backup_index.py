"""index.yaml and backup.yaml: what a backup says about its instance. See: LXD doc backup, the layout of LXD 5.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylxc.db.models import Snapshot
from pylxc.errors import BadRequest
from pylxc.services.backups import document
from pylxc.services.instances import checks
from pylxc.services.unarchive import Shift
from pylxc.wire.check import check
from pylxc.wire.instances import Devices, Instance, InstanceSnapshot, InstancesPost
from pylxc.wire.profiles import ProfilesPost
from pylxc.wire.storage import StoragePoolsPost

_SHIFTED = "volatile.last_state.idmap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A checked index.

    Attributes:
        head: what every index begins with.
        project: the instance's project, "" when it is not said.
        config: what creates the instance.
        shift: how its ids were shifted on the disk.
        snapshots: as the wire has them, oldest first.
        expanded_devices: what the instance had with its profiles.
        profiles: its profiles, as the wire has them.
        pool_config: the storage pool, as the wire has it.
        created_at: when it was made, as the wire has it, or as YAML read it.
    """

    head: document.Head
    project: str
    config: InstancesPost
    shift: Shift | None
    snapshots: tuple[dict[str, Any], ...]
    expanded_devices: Devices
    profiles: tuple[ProfilesPost, ...]
    pool_config: StoragePoolsPost
    created_at: Any

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.head.name

    @property
    def pool(self) -> str:
        """The name of its storage pool, "" when it is not said."""
        return self.head.pool


def describe(
    instance: Instance,
    snapshots: Sequence[InstanceSnapshot],
    *,
    pool: dict[str, Any],
    volume: dict[str, Any],
    profiles: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return what a backup.yaml says.

    Args:
        instance: as the wire has it.
        snapshots: those that are beside it.
        pool: the storage pool, as the wire has it.
        volume: the instance's volume, as the wire has it.
        profiles: the instance's, as the wire has them.
    """
    return {
        "container": dict(instance),
        "snapshots": [dict(snapshot) for snapshot in snapshots],
        "pool": pool,
        "profiles": list(profiles),
        "volume": volume,
        "volume_snapshots": [
            {
                "name": s["name"],
                "description": "",
                "content_type": "filesystem",
                "config": {},
                "expires_at": s["expires_at"],
            }
            for s in snapshots
        ],
    }


def index(described: dict[str, Any]) -> dict[str, Any]:
    """Return what the index.yaml of a backup says, around what its backup.yaml does."""
    names = [snapshot["name"] for snapshot in described["snapshots"]]
    return document.index("container", described["container"]["name"], described["pool"], names, described)


def parse(content: bytes) -> Index:
    """Check the index.yaml of a backup.

    Raises:
        BadRequest: it is malformed, or of something that cannot be imported here.
    """
    return document.parse(content, "backup", "index.yaml", _from_index)


def parse_described(content: bytes) -> Index:
    """Check the backup.yaml of an instance's volume; raises like `parse`."""
    return document.parse(content, "backup.yaml", "text", _from_described)


def _from_index(data: dict[str, Any]) -> Index:
    return _checked(data["config"], document.head(data, "container"))


def _from_described(data: dict[str, Any]) -> Index:
    container, pool = _container(data), data.get("pool") or {}
    names = [str(snapshot["name"]).rpartition("/")[2] for snapshot in data.get("snapshots") or []]
    about = {"name": container["name"], "type": container.get("type"), "pool": pool.get("name"), "snapshots": names}
    return _checked(data, document.head(about, "container"))


def _container(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["container"] if config.get("container") else config["instance"]
    return found


def _checked(config: dict[str, Any], head: document.Head) -> Index:
    container = _container(config)
    fields = {key: container.get(key) for key in ("architecture", "config", "devices", "ephemeral", "description")}
    fields["profiles"] = container.get("profiles") or []
    expanded = check({"devices": container.get("expanded_devices")}, InstancesPost)
    return Index(
        head=head,
        project=str(container.get("project") or ""),
        config=check(fields, InstancesPost),
        shift=shift(container),
        snapshots=document.with_config(head.snapshots, config.get("snapshots") or []),
        expanded_devices=expanded.get("devices", {}),
        profiles=tuple(check(profile, ProfilesPost) for profile in config.get("profiles") or []),
        pool_config=check(config.get("pool") or {}, StoragePoolsPost),
        created_at=container.get("created_at"),
    )


def shift(described: dict[str, Any]) -> Shift | None:
    """Return how ids are shifted in the tree of an instance or a snapshot; raises BadRequest."""
    return document.shift((described.get("config") or {}).get(_SHIFTED))


def snapshot_row(instance_id: int, given: dict[str, Any]) -> Snapshot:
    """Return the row of a snapshot that an index has.

    Raises:
        BadRequest: it has a value of another type, or one that no instance can have.
    """
    try:
        config = {str(key): str(value) for key, value in (given.get("config") or {}).items()}
        row = Snapshot(
            instance_id=instance_id,
            name=given["name"],
            state="created",
            architecture=str(given.get("architecture") or ""),
            config=config | ({_SHIFTED: "[]"} if _SHIFTED in config else {}),  # unshifted as it is unpacked
            devices={
                str(key): {str(k): str(v) for k, v in device.items()}
                for key, device in (given.get("devices") or {}).items()
            },
            profiles=[str(profile) for profile in given.get("profiles") or []],
            ephemeral=bool(given.get("ephemeral")),
            expires_at=document.moment(given.get("expires_at")),
        )
        if created := document.moment(given.get("created_at")):
            row.created_at = created
    except (AttributeError, TypeError, ValueError) as error:
        raise BadRequest(f"Invalid backup: snapshot {given['name']!r} is malformed: {error}") from error
    try:
        checks.config(row.config)
    except BadRequest as error:
        raise BadRequest(f"Invalid backup: snapshot {given['name']!r}: {error.message}") from error
    return row
