"""The server: GET /1.0. See: LXD doc rest-api, server."""

from __future__ import annotations

from typing import TypedDict

DIALECT = "5.0.2"
"""The LXD release whose API this server speaks. Clients compare `server_version` with what they need."""


class ServerPut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0. Values may come as numbers or booleans; they are kept as text."""

    config: dict[str, str | bool | int | None]


class ServerStorageDriverInfo(TypedDict):
    """A storage driver; capitalised on the wire, alone of all."""

    Name: str
    Version: str
    Remote: bool


class ServerEnvironment(TypedDict):
    """What the server runs on; `storage` is empty until there is a pool: clients then hint at `init`."""

    addresses: list[str]
    architectures: list[str]
    certificate: str
    certificate_fingerprint: str
    driver: str
    driver_version: str
    firewall: str
    kernel: str
    kernel_architecture: str
    kernel_features: dict[str, str]
    kernel_version: str
    lxc_features: dict[str, str]
    os_name: str
    os_version: str
    project: str
    server: str
    server_clustered: bool
    server_event_mode: str
    server_name: str
    server_pid: int
    server_version: str
    storage: str
    storage_version: str
    storage_supported_drivers: list[ServerStorageDriverInfo]


class ServerUntrusted(TypedDict):
    """What a caller sees that is not trusted."""

    config: dict[str, str | bool]
    api_extensions: list[str]
    api_status: str
    api_version: str
    auth: str
    public: bool
    auth_methods: list[str]


class Server(ServerUntrusted):
    """The whole of it."""

    environment: ServerEnvironment


class InitPost(TypedDict, total=False):
    """Body of POST /1.0/pylxc/init: one of the three."""

    auto: bool
    minimal: bool
    preseed: Preseed


class InitAnswer(TypedDict):
    """Answer to it: one line about the storage pool that was made, what it is and why; empty for none."""

    storage: str


class PreseedNetwork(TypedDict, total=False):
    """A network of a preseed."""

    name: str
    type: str
    project: str
    description: str
    config: dict[str, str]


class PreseedStoragePool(TypedDict, total=False):
    """A storage pool of a preseed."""

    name: str
    driver: str
    description: str
    config: dict[str, str]


class PreseedProfile(TypedDict, total=False):
    """A profile of a preseed."""

    name: str
    project: str
    description: str
    config: dict[str, str]
    devices: dict[str, dict[str, str]]


class PreseedProject(TypedDict, total=False):
    """A project of a preseed."""

    name: str
    description: str
    config: dict[str, str]


class Preseed(TypedDict, total=False):
    """LXD's preseed: what is named is made, or changed where it is there already."""

    config: dict[str, str | bool | int | None]
    networks: list[PreseedNetwork]
    storage_pools: list[PreseedStoragePool]
    profiles: list[PreseedProfile]
    projects: list[PreseedProject]
