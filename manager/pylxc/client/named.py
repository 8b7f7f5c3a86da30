"""Entities that are a name with a configuration: profiles, networks, storage pools, projects."""

from __future__ import annotations

from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.client.client import Client, Reply
    from pylxc.client.volumes import Volumes


class Named:
    """What they have in common; a subclass says where they are."""

    path = ""

    def __init__(self, client: Client) -> None:
        self._client = client

    def url(self, name: str) -> str:
        """Return the path of the entity `name`."""
        return f"{self.path}/{quote(name)}"

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(entity["name"] for entity in self.list())

    def list(self) -> list[dict[str, Any]]:
        """Return the entities."""
        return list(self._client.get(self.path, recursion=1))

    def get(self, name: str) -> dict[str, Any]:
        """Return one entity.

        Raises:
            NotFound: there is none of that name.
        """
        return dict(self._client.get(self.url(name)))

    def read(self, name: str) -> Reply:
        """Return one entity together with its etag."""
        return self._client.request("GET", self.url(name))

    def create(self, name: str, **fields: object) -> None:
        """Create an entity with `fields` (config, description, and what else it has).

        Raises:
            Conflict: the name is taken.
            BadRequest: a value is invalid.
        """
        self._client.request("POST", self.path, {"name": name, **fields})

    def update(self, name: str, fields: dict[str, Any], *, if_match: str = "") -> None:
        """Replace the entity's configuration by `fields`.

        Raises:
            PreconditionFailed: `if_match` is given and the entity has changed since it was read.
        """
        self._client.request("PUT", self.url(name), fields, if_match=if_match)

    def rename(self, name: str, new: str) -> None:
        """Rename an entity."""
        self._client.start("POST", self.url(name), {"name": new}).wait()

    def delete(self, name: str) -> None:
        """Delete an entity.

        Raises:
            BadRequest: it is in use.
        """
        self._client.request("DELETE", self.url(name))


class Profiles(Named):
    """Profiles: configuration and devices that instances share."""

    path = "/1.0/profiles"


class Projects(Named):
    """Projects: name spaces for instances, images, profiles and so on."""

    path = "/1.0/projects"

    def state(self, name: str) -> dict[str, Any]:
        """Return the use and the limits of a project's resources."""
        return dict(self._client.get(f"{self.url(name)}/state"))


class Networks(Named):
    """Networks, managed ones and the host's own."""

    path = "/1.0/networks"

    def state(self, name: str) -> dict[str, Any]:
        """Return a network's addresses and counters."""
        return dict(self._client.get(f"{self.url(name)}/state"))

    def confirm(self, name: str) -> None:
        """Keep a bridge over the host's own interface that waits for an answer of the gateway."""
        self._client.request("POST", f"{self.url(name)}/confirm")

    def leases(self, name: str) -> list[dict[str, Any]]:
        """Return a network's DHCP leases."""
        return list(self._client.get(f"{self.url(name)}/leases"))


class StoragePools(Named):
    """Storage pools."""

    path = "/1.0/storage-pools"

    def resources(self, name: str) -> dict[str, Any]:
        """Return a pool's space and inodes, used and in all."""
        return dict(self._client.get(f"{self.url(name)}/resources"))

    def volumes(self, name: str) -> Volumes:
        """Return the custom volumes of a pool."""
        from pylxc.client.volumes import Volumes

        return Volumes(self._client, name)
