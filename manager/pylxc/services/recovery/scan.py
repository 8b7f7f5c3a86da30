"""Look through a storage pool for instances and custom volumes that no row knows.

What counts is a tree in its place that says itself whose it is: a backup.yaml is written last when an instance is made,
and nothing in `.staging` or `.trash` is anybody's.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from pylxc import validate
from pylxc.config import device as device_tables
from pylxc.errors import BadRequest, PylxcError
from pylxc.paths import split_key
from pylxc.services.instances import backup_index, checks
from pylxc.services.instances.backup_index import Index
from pylxc.services.instances.volume_metadata import VolumeMetadata
from pylxc.wire.storage import StoragePoolsPost
from pylxc.wire.times import timestamp

Known = Collection[tuple[str, str, str]]
"""Volumes that have rows, as (type, project, name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundInstance:
    """An instance's volume. `snapshots` are as the wire has them, those of which there are volumes."""

    pool: str
    project: str
    name: str
    index: Index
    snapshots: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVolume:
    """A custom volume, and the names of its snapshots, oldest first."""

    pool: str
    project: str
    name: str
    snapshots: tuple[tuple[str, dt.datetime], ...]


@dataclass(slots=True)
class Findings:
    """What a pool holds that has no row; `problems` are lines about what cannot be taken."""

    instances: list[FoundInstance] = field(default_factory=list)
    volumes: list[FoundVolume] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def scan(directory: str, pool: str, known: Known) -> Findings:
    """Return what lies in the directory of the storage pool `pool`."""
    found = Findings()
    for key in _directories(f"{directory}/containers"):
        project, name = split_key(key)
        if ("container", project, name) in known:
            continue
        try:
            found.instances.append(_instance(directory, pool, key, found.problems))
        except (PylxcError, OSError) as error:
            reason = error.message if isinstance(error, PylxcError) else error.strerror
            found.problems.append(f"{directory}/containers/{key} is not taken: {reason}")
    for key in _directories(f"{directory}/custom"):
        project, _, name = key.partition("_")
        if ("custom", project, name) in known:
            continue
        try:
            validate.project_name(project)
            validate.volume_name(name, project)
        except BadRequest as error:
            found.problems.append(f"{directory}/custom/{key} is not taken: {error.message}")
            continue
        found.volumes.append(
            FoundVolume(pool=pool, project=project, name=name, snapshots=_snapshots_of_volume(directory, key))
        )
    return found


def pool_config(directory: str, pool: str, driver: str = "") -> StoragePoolsPost:
    """Return the pool `pool`, of `driver` when that is given, as one of its instances has written it down."""
    for key in _directories(f"{directory}/containers"):
        with contextlib.suppress(PylxcError, OSError):
            index = _read(f"{directory}/containers/{key}")
            said = index.pool_config if index and index.pool == pool else {}
            if said.get("driver") and driver in ("", said["driver"]):
                return said
    return {}


def _instance(directory: str, pool: str, key: str, problems: list[str]) -> FoundInstance:
    project, name = split_key(key)
    validate.project_name(project)
    validate.instance_name(name)
    path = f"{directory}/containers/{key}"
    index = _read(path)
    if index is None:
        raise BadRequest("it has no backup.yaml: it was not finished")
    if (index.name, index.project or "default", index.pool or pool) != (name, project, pool):
        raise BadRequest(
            f"its backup.yaml is of instance {index.name!r} in storage pool {index.pool!r}: it was not finished"
        )
    if not _is_directory(f"{path}/rootfs"):
        raise BadRequest("it has no rootfs")
    _check(index)
    snapshots = tuple(_snapshots(directory, key, index, problems))
    return FoundInstance(pool=pool, project=project, name=name, index=index, snapshots=snapshots)


def _check(index: Index) -> None:
    """Check what can be checked of an instance without knowing what else there is."""
    checks.config(index.config.get("config", {}))
    for name, device in index.config.get("devices", {}).items():
        validate.device_name(name)
        device_tables.table(device).validate(device)
    for snapshot in index.snapshots:
        backup_index.snapshot_row(0, snapshot)


def _snapshots(directory: str, key: str, index: Index, problems: list[str]) -> Iterator[dict[str, Any]]:
    place = f"{directory}/containers-snapshots/{key}"
    there = [name for name in _directories(place) if _is_directory(f"{place}/{name}/rootfs")]
    for snapshot in index.snapshots:
        if snapshot["name"] in there:
            yield snapshot
        else:
            problems.append(f"Snapshot {snapshot['name']!r} of instance {index.name!r} is gone")
    listed = {snapshot["name"] for snapshot in index.snapshots}
    for name in there:
        if name not in listed:
            # It was taken at last, or the instance has just gone back to an older one. Where it lies says whose it is.
            try:
                yield _unlisted(f"{place}/{name}", name, index)
            except PylxcError as error:
                problems.append(f"{place}/{name} is not taken: {error.message}")


def _unlisted(path: str, name: str, index: Index) -> dict[str, Any]:
    validate.snapshot_name(name)
    own = _read(path)
    if own is None or own.name != index.name:
        own = index  # it was taken before either was written, or before a rename
    created = dt.datetime.fromtimestamp(os.lstat(path).st_ctime, dt.UTC)
    snapshot = {**own.config, "name": name, "created_at": timestamp(created)}
    backup_index.snapshot_row(0, snapshot)
    return snapshot


def _snapshots_of_volume(directory: str, key: str) -> tuple[tuple[str, dt.datetime], ...]:
    place = f"{directory}/custom-snapshots/{key}"
    found = []
    for name in _directories(place):
        with contextlib.suppress(BadRequest):
            validate.snapshot_name(name)
            found.append((name, dt.datetime.fromtimestamp(os.lstat(f"{place}/{name}").st_ctime, dt.UTC)))
    return tuple(sorted(found, key=lambda each: each[1]))


def _read(path: str) -> Index | None:
    with VolumeMetadata(path) as files:
        content = files.backup()
    return None if content is None else backup_index.parse_described(content)


def _directories(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
