"""index.yaml and backup.yaml: what a backup says about its instance. See: LXD doc backup, the layout of LXD 5.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pylxc import validate
from pylxc.errors import BadRequest, PylxcError
from pylxc.wire.check import check
from pylxc.wire.instances import Instance, InstanceSnapshot, InstancesPost

MAX_SNAPSHOTS = 10_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A checked index. `config` is what creates the instance; `snapshots` are as the wire has them, oldest first."""

    name: str
    pool: str
    config: InstancesPost
    snapshots: tuple[dict[str, Any], ...]


def write(
    instance: Instance,
    snapshots: Sequence[InstanceSnapshot],
    *,
    pool: dict[str, Any],
    volume: dict[str, Any],
    profiles: Sequence[dict[str, Any]],
) -> tuple[str, str]:
    """Return the texts of index.yaml and backup.yaml.

    Args:
        instance: as the wire has it.
        snapshots: those that are in the backup.
        pool: the storage pool, as the wire has it.
        volume: the instance's volume, as the wire has it.
        profiles: the instance's, as the wire has them.
    """
    config = {
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
    index = {
        "name": instance["name"],
        "backend": pool["driver"],
        "pool": pool["name"],
        "snapshots": [snapshot["name"] for snapshot in snapshots],
        "optimized": False,
        "optimized_header": False,
        "type": "container",
        "config": config,
    }
    return _dump(index), _dump(config)


def _dump(data: dict[str, Any]) -> str:
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def parse(content: bytes) -> Index:
    """Check an index.yaml.

    Raises:
        BadRequest: it is malformed, or of something that cannot be imported here.
    """
    try:
        data = yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"Invalid backup: its index.yaml is no YAML: {str(error).splitlines()[0][:200]}") from error
    try:
        return _checked(data)
    except PylxcError as error:
        raise BadRequest(f"Invalid backup: {error.message}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"Invalid backup: its index.yaml lacks something ({error})") from error


def _checked(data: dict[str, Any]) -> Index:
    if data.get("type", "container") not in ("container", ""):
        raise BadRequest(f"it is of a {str(data['type'])[:40]}, not of a container")
    if data.get("optimized"):
        raise BadRequest("it has the form of one storage driver (optimized), which cannot be imported yet")
    config = data["config"]
    container = config["container"] if config.get("container") else config["instance"]
    names = [str(name) for name in data.get("snapshots") or []]
    if len(names) > MAX_SNAPSHOTS:
        raise BadRequest("it has too many snapshots")
    for name in names:
        validate.snapshot_name(name)
    given = {str(s["name"]).rpartition("/")[2]: s for s in config.get("snapshots") or []}
    snapshots = []
    for name in names:
        if name not in given:
            raise BadRequest(f"snapshot {name!r} has no configuration")
        snapshots.append({**given[name], "name": name})
    fields = {key: container.get(key) for key in ("architecture", "config", "devices", "ephemeral", "description")}
    fields["profiles"] = container.get("profiles") or []
    return Index(
        name=str(data["name"]),
        pool=str(data.get("pool") or ""),
        config=check(fields, InstancesPost),
        snapshots=tuple(snapshots),
    )
