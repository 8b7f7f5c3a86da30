"""index.yaml and backup.yaml: what a backup says about its instance. See: LXD doc backup, the layout of LXD 5.0."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pylxc import validate
from pylxc.db.models import Snapshot
from pylxc.errors import BadRequest, PylxcError
from pylxc.services.instances import checks
from pylxc.wire.check import check
from pylxc.wire.instances import Devices, Instance, InstanceSnapshot, InstancesPost
from pylxc.wire.profiles import ProfilesPost
from pylxc.wire.storage import StoragePoolsPost
from pylxc.wire.times import parse_timestamp

MAX_SNAPSHOTS = 10_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PlainDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_PlainDumper):  # type: ignore[misc, valid-type]
    """Writes what is there twice twice: other readers need not know of YAML's references."""

    def ignore_aliases(self, data: object) -> bool:
        """Return that `data` is to be written whole."""
        del data
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A checked index.

    Attributes:
        name: the instance's.
        project: its project, "" when it is not said.
        pool: the name of its storage pool, "" when it is not said.
        config: what creates the instance.
        snapshots: as the wire has them, oldest first.
        expanded_devices: what the instance had with its profiles.
        profiles: its profiles, as the wire has them.
        pool_config: the storage pool, as the wire has it.
        created_at: when it was made, as the wire has it, or as YAML read it.
    """

    name: str
    project: str
    pool: str
    config: InstancesPost
    snapshots: tuple[dict[str, Any], ...]
    expanded_devices: Devices
    profiles: tuple[ProfilesPost, ...]
    pool_config: StoragePoolsPost
    created_at: Any


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
    return {
        "name": described["container"]["name"],
        "backend": described["pool"]["driver"],
        "pool": described["pool"]["name"],
        "snapshots": [snapshot["name"] for snapshot in described["snapshots"]],
        "optimized": False,
        "optimized_header": False,
        "type": "container",
        "config": described,
    }


def dump(data: dict[str, Any]) -> str:
    """Return YAML."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def parse(content: bytes) -> Index:
    """Check the index.yaml of a backup.

    Raises:
        BadRequest: it is malformed, or of something that cannot be imported here.
    """
    return _parse(content, "backup", "index.yaml", _from_index)


def parse_described(content: bytes) -> Index:
    """Check the backup.yaml of an instance's volume; raises like `parse`."""
    return _parse(content, "backup.yaml", "text", _from_described)


def _parse(content: bytes, what: str, part: str, check_data: Callable[[dict[str, Any]], Index]) -> Index:
    try:
        # With aliases a small file can say the same thing without end; nobody who writes these uses them.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, Loader=_Loader)):
            raise BadRequest(f"Invalid {what}: its {part} refers to itself")
        data = yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"Invalid {what}: its {part} is no YAML: {str(error).splitlines()[0][:200]}") from error
    try:
        _require_text_keys(data)
        return check_data(data)
    except PylxcError as error:
        raise BadRequest(f"Invalid {what}: {error.message}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"Invalid {what}: its {part} lacks something ({error})") from error


def _require_text_keys(data: Any) -> None:
    """Raise BadRequest unless the keys of all maps are text: to YAML `no` is a truth value, `1` a number."""
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise BadRequest(f"the key {key!r} is no text")
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _from_index(data: dict[str, Any]) -> Index:
    if data.get("type", "container") not in ("container", ""):
        raise BadRequest(f"it is of a {str(data['type'])[:40]}, not of a container")
    if data.get("optimized"):
        raise BadRequest("it has the form of one storage driver (optimized), which cannot be imported yet")
    names = [_text(name, "a snapshot") for name in data.get("snapshots") or []]
    return _checked(
        data["config"], name=_text(data["name"], "the instance"), pool=str(data.get("pool") or ""), names=names
    )


def _from_described(data: dict[str, Any]) -> Index:
    container = _container(data)
    if container.get("type", "container") not in ("container", ""):
        raise BadRequest(f"it is of a {str(container['type'])[:40]}, not of a container")
    names = [_last_part(snapshot) for snapshot in data.get("snapshots") or []]
    pool = data.get("pool") or {}
    return _checked(data, name=str(container["name"]), pool=str(pool.get("name") or ""), names=names)


def _container(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["container"] if config.get("container") else config["instance"]
    return found


def _last_part(snapshot: dict[str, Any]) -> str:
    return str(snapshot["name"]).rpartition("/")[2]


def _checked(config: dict[str, Any], *, name: str, pool: str, names: list[str]) -> Index:
    container = _container(config)
    if len(names) > MAX_SNAPSHOTS:
        raise BadRequest("it has too many snapshots")
    for snapshot in names:
        validate.snapshot_name(snapshot)
    if len(set(names)) < len(names):
        raise BadRequest("it has two snapshots of one name")
    given = {_last_part(s): s for s in config.get("snapshots") or []}
    snapshots = []
    for snapshot in names:
        if snapshot not in given:
            raise BadRequest(f"snapshot {snapshot!r} has no configuration")
        snapshots.append({**given[snapshot], "name": snapshot})
    fields = {key: container.get(key) for key in ("architecture", "config", "devices", "ephemeral", "description")}
    fields["profiles"] = container.get("profiles") or []
    expanded = check({"devices": container.get("expanded_devices")}, InstancesPost)
    return Index(
        name=name,
        project=str(container.get("project") or ""),
        pool=pool,
        config=check(fields, InstancesPost),
        snapshots=tuple(snapshots),
        expanded_devices=expanded.get("devices", {}),
        profiles=tuple(check(profile, ProfilesPost) for profile in config.get("profiles") or []),
        pool_config=check(config.get("pool") or {}, StoragePoolsPost),
        created_at=container.get("created_at"),
    )


def snapshot_row(instance_id: int, given: dict[str, Any]) -> Snapshot:
    """Return the row of a snapshot that an index has.

    Raises:
        BadRequest: it has a value of another type, or one that no instance can have.
    """
    try:
        row = Snapshot(
            instance_id=instance_id,
            name=given["name"],
            state="created",
            architecture=str(given.get("architecture") or ""),
            config={str(key): str(value) for key, value in (given.get("config") or {}).items()},
            devices={
                str(key): {str(k): str(v) for k, v in device.items()}
                for key, device in (given.get("devices") or {}).items()
            },
            profiles=[str(profile) for profile in given.get("profiles") or []],
            ephemeral=bool(given.get("ephemeral")),
            expires_at=moment(given.get("expires_at")),
        )
        if created := moment(given.get("created_at")):
            row.created_at = created
    except (AttributeError, TypeError, ValueError) as error:
        raise BadRequest(f"Invalid backup: snapshot {given['name']!r} is malformed: {error}") from error
    try:
        checks.config(row.config)
    except BadRequest as error:
        raise BadRequest(f"Invalid backup: snapshot {given['name']!r}: {error.message}") from error
    return row


def moment(value: Any) -> dt.datetime | None:
    """Return a time of an index, None for never; raises ValueError."""
    # YAML has times of its own, which the parser returns as such.
    if value is None or isinstance(value, str):
        return parse_timestamp(value or "")
    found: dt.datetime = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return None if found.year == 1 else found


def _text(name: Any, what: str) -> str:
    if not isinstance(name, str):
        raise BadRequest(f"the name of {what} is no text")
    return name
