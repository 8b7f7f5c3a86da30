"""Queries on custom volumes: their snapshots and who uses them. Callers hold the transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from pylxc.db import instances, projects
from pylxc.db.models import Instance, Profile, StorageVolume, VolumeSnapshot
from pylxc.errors import NotFound

Name = tuple[str, str, str]
"""A custom volume: its pool, its project, its name."""

_IS_CREATED = StorageVolume.state == "created"


def unsettled(session: Session) -> list[StorageVolume]:
    """Return the volumes that a dead daemon was renaming or bringing back to a snapshot."""
    query = select(StorageVolume).where(StorageVolume.state == "created")
    return list(session.scalars(query.where((StorageVolume.new_name != "") | (StorageVolume.restoring != ""))))


def created(session: Session) -> list[StorageVolume]:
    """Return the created custom volumes of every pool."""
    return list(session.scalars(select(StorageVolume).where(StorageVolume.type == "custom", _IS_CREATED)))


# Snapshots


def snapshots(session: Session, volume_ids: Iterable[int]) -> dict[int, list[VolumeSnapshot]]:
    """Return the created snapshots by the volume's id, oldest first."""
    wanted = set(volume_ids)
    found: dict[int, list[VolumeSnapshot]] = {}
    query = select(VolumeSnapshot).where(VolumeSnapshot.state == "created")
    for row in session.scalars(query.order_by(VolumeSnapshot.created_at, VolumeSnapshot.id)):
        if row.storage_volume_id in wanted:
            found.setdefault(row.storage_volume_id, []).append(row)
    return found


def snapshot(session: Session, volume_id: int, name: str, *, state: str | None = "created") -> VolumeSnapshot:
    """Return a snapshot of a volume in `state` (None for any); raises NotFound."""
    query = select(VolumeSnapshot).where(VolumeSnapshot.storage_volume_id == volume_id, VolumeSnapshot.name == name)
    if state is not None:
        query = query.where(VolumeSnapshot.state == state)
    found = session.scalar(query)
    if found is None:
        raise NotFound("Storage volume snapshot not found")
    return found


def claimed(session: Session, volume_id: int) -> set[str]:
    """Return the names that are taken among a volume's snapshots, whatever state these are in."""
    query = select(VolumeSnapshot.name).where(VolumeSnapshot.storage_volume_id == volume_id)
    return set(session.scalars(query))


def unsettled_snapshots(session: Session) -> list[VolumeSnapshot]:
    """Return what a dead daemon left half made, half deleted or half renamed, of volumes that are whole."""
    query = select(VolumeSnapshot).join(VolumeSnapshot.volume).where(_IS_CREATED)
    return list(session.scalars(query.where((VolumeSnapshot.state != "created") | (VolumeSnapshot.new_name != ""))))


def expired(session: Session, moment: dt.datetime) -> list[VolumeSnapshot]:
    """Return the created snapshots whose time is over at `moment`."""
    query = select(VolumeSnapshot).join(VolumeSnapshot.volume).where(_IS_CREATED)
    return list(session.scalars(query.where(VolumeSnapshot.state == "created", VolumeSnapshot.expires_at <= moment)))


# Users


def users(session: Session) -> dict[Name, list[tuple[str, str, str]]]:
    """Return per volume the (kind, project, name) of what names it; kind is "instance" or "profile".

    An instance that has a volume by a profile only is not named, as in LXD: the profile is.
    """
    found: dict[Name, list[tuple[str, str, str]]] = {}
    for row in holders(session):
        scope = projects.scope(row.project, "storage.volumes")
        kind = "instance" if isinstance(row, Instance) else "profile"
        for pool, volume in dict.fromkeys(named(row.devices.values())):
            found.setdefault((pool, scope, volume), []).append((kind, row.project.name, row.name))
    return found


def holders(session: Session) -> Iterator[Instance | Profile]:
    """Return what may have devices: instances in any state, and profiles."""
    yield from session.scalars(select(Instance).order_by(Instance.name))
    yield from session.scalars(select(Profile).order_by(Profile.name))


def named(devices: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Return the pool and the name of each volume that devices name."""
    for device in devices:
        if device.get("type") == "disk" and device.get("pool") and device.get("source"):
            yield device["pool"], device["source"]


def attached(session: Session, volume: Name) -> list[str]:
    """Return the names of the instances that run with a volume, or are about to."""
    pool, project, name = volume
    return [
        row.name
        for row in instances.with_devices(session)
        if projects.scope(row.project, "storage.volumes") == project
        and (pool, name) in named(each["device"] for each in row.attached.values())
    ]


def rename(session: Session, volume: Name, new: tuple[str, str]) -> None:
    """Have whatever names a volume name another pool and volume instead."""
    pool, project, name = volume

    def changed(device: dict[str, str]) -> dict[str, str]:
        if (pool, name) in named([device]):
            return {**device, "pool": new[0], "source": new[1]}
        return device

    for row in holders(session):
        if projects.scope(row.project, "storage.volumes") == project and (pool, name) in named(row.devices.values()):
            row.devices = {key: changed(device) for key, device in row.devices.items()}
