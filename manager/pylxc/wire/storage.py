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


class Usage(TypedDict):
    """Bytes or inodes."""

    used: int
    total: int


class StoragePoolResources(TypedDict):
    """Room in a pool."""

    space: Usage
    inodes: Usage


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
