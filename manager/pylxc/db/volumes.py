"""Queries on custom volumes: their snapshots and who uses them. Callers hold the transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from pylxc.db import instances, profiles, projects
from pylxc.db.models import Instance, Profile, Project, StorageVolume, VolumeSnapshot
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


def in_project(session: Session, project_id: int) -> list[StorageVolume]:
    """Return a project's own custom volumes in any state but those that are being removed."""
    query = select(StorageVolume).where(StorageVolume.project_id == project_id, StorageVolume.type == "custom")
    return list(session.scalars(query.where(StorageVolume.state != "deleting").order_by(StorageVolume.name)))


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
    scopes = _scopes(session)
    found: dict[Name, list[tuple[str, str, str]]] = {}
    for kind, entity in (("instance", Instance), ("profile", Profile)):
        query = select(Project.name, entity.name, entity.devices).join(entity.project).order_by(entity.name)
        for project, name, devices in session.execute(query):
            for pool, volume in dict.fromkeys(named(devices.values())):
                found.setdefault((pool, scopes[project], volume), []).append((kind, project, name))
    return found


def attached(session: Session, volume: Name) -> list[tuple[str, str]]:
    """Return the (project, name) of the instances that run with a volume, or are about to."""
    pool, project, name = volume
    scopes = _scopes(session)
    query = select(Project.name, Instance.name, Instance.attached).join(Instance.project)
    return [
        (of, instance)
        for of, instance, has in session.execute(query.where(Instance.state == "created"))
        if scopes[of] == project and (pool, name) in named(each["device"] for each in has.values())
    ]


def rename(session: Session, volume: Name, new: tuple[str, str]) -> None:
    """Have whatever names a volume name another pool and volume instead."""
    pool, _, name = volume

    def changed(device: dict[str, str]) -> dict[str, str]:
        return {**device, "pool": new[0], "source": new[1]} if (pool, name) in named([device]) else device

    for kind, project, user in users(session).get(volume, ()):
        row: Instance | Profile
        if kind == "instance":
            row = instances.get(session, project, user, state=None)
        else:
            row = profiles.get(session, project, user)
        row.devices = {key: changed(device) for key, device in row.devices.items()}


def named(devices: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Return the pool and the name of each volume that devices name."""
    for device in devices:
        if device.get("type") == "disk" and device.get("pool") and device.get("source"):
            yield device["pool"], device["source"]


def _scopes(session: Session) -> dict[str, str]:
    """Return per project the one whose volumes it uses."""
    return {row.name: projects.scope(row, "storage.volumes") for row in projects.everything(session)}
