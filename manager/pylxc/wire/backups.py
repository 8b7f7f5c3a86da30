"""Backups of instances and of custom volumes. See: LXD doc rest-api, instances and storage-pools."""

from __future__ import annotations

from typing import TypedDict


class BackupsPost(TypedDict, total=False):
    """Body of POST of a new backup; of `instance_only`, `container_only` and `volume_only` any leaves snapshots out."""

    name: str
    expires_at: str | None
    instance_only: bool
    container_only: bool
    volume_only: bool
    optimized_storage: bool
    compression_algorithm: str


class BackupPost(TypedDict, total=False):
    """Body of POST of a backup: its new name."""

    name: str


class Backup(TypedDict):
    """A backup, with what is so for either kind of owner."""

    name: str
    created_at: str
    expires_at: str
    optimized_storage: bool


class InstanceBackup(Backup):
    """A backup of an instance."""

    instance_only: bool
    container_only: bool


class VolumeBackup(Backup):
    """A backup of a custom volume."""

    volume_only: bool
