"""Storage pools and volumes. See: LXD doc rest-api, storage-pools."""

from __future__ import annotations

from typing import TypedDict


class StoragePoolPut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/storage-pools/NAME."""

    config: dict[str, str]
    description: str


class StoragePoolsPost(StoragePoolPut, total=False):
    """Body of POST /1.0/storage-pools."""

    name: str
    driver: str


class StoragePool(TypedDict):
    """A storage pool."""

    name: str
    description: str
    driver: str
    status: str
    config: dict[str, str]
    used_by: list[str]
    locations: list[str]


class RecoverPost(TypedDict, total=False):
    """Body of POST /internal/recover/validate and /internal/recover/import.

    `profiles`, which is ours, has profiles that are gone made again as the instances have them written down.
    """

    pools: list[StoragePoolsPost]
    profiles: bool


class UnknownVolume(TypedDict):
    """A volume without a row; `type` is container or volume."""

    name: str
    type: str
    snapshotCount: int
    project: str
    pool: str


class RecoverResult(TypedDict):
    """What recovering would do, or has done. The first two are LXD's and capitalised on the wire.

    `DependencyErrors` name what is needed and gone, and nothing is imported; `Problems` what is not taken; `Warnings`
    what will be different.
    """

    UnknownVolumes: list[UnknownVolume]
    DependencyErrors: list[str]
    Problems: list[str]
    Warnings: list[str]


class Usage(TypedDict):
    """Bytes or inodes."""

    used: int
    total: int


class StoragePoolResources(TypedDict):
    """Room in a pool."""

    space: Usage
    inodes: Usage


class StorageVolumeSource(TypedDict, total=False):
    """Where a new volume's content comes from; `name` is VOLUME or VOLUME/SNAPSHOT."""

    type: str
    name: str
    pool: str
    project: str
    volume_only: bool
    refresh: bool


class StorageVolumePut(TypedDict, total=False):
    """Body of PUT and PATCH of a volume; `restore` names the snapshot to go back to."""

    config: dict[str, str]
    description: str
    restore: str


class StorageVolumesPost(TypedDict, total=False):
    """Body of POST /1.0/storage-pools/NAME/volumes."""

    name: str
    type: str
    content_type: str
    description: str
    config: dict[str, str]
    source: StorageVolumeSource


class StorageVolumePost(TypedDict, total=False):
    """Body of POST of a volume: its new name, pool and project."""

    name: str
    pool: str
    project: str
    migration: bool


class StorageVolumeSnapshotsPost(TypedDict, total=False):
    """Body of POST of a volume's snapshots."""

    name: str
    description: str
    expires_at: str | None


class StorageVolumeSnapshotPut(TypedDict, total=False):
    """Body of PUT and PATCH of a volume's snapshot."""

    description: str
    expires_at: str | None


class StorageVolumeSnapshotPost(TypedDict, total=False):
    """Body of POST of a volume's snapshot."""

    name: str


class StorageVolumeSnapshot(TypedDict):
    """A snapshot of a volume."""

    name: str
    description: str
    content_type: str
    config: dict[str, str]
    created_at: str
    expires_at: str | None


class StorageVolume(TypedDict):
    """A volume; `type` is container, virtual-machine, custom or image."""

    name: str
    description: str
    type: str
    content_type: str
    config: dict[str, str]
    used_by: list[str]
    location: str
    project: str
    created_at: str
