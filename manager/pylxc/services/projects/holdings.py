"""What is in a project, as its limits and restrictions see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from pylxc.db import instances, networks, profiles, projects, volumes
from pylxc.db.models import Config, Devices, Network, Profile, Project, StorageVolume
from pylxc.services.instances.expand import Record, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What is in a project, in whatever state: what is being made counts, so that two cannot share the last place.

    Attributes:
        project: its name.
        config: its configuration.
        instances: with their profiles laid under their own configuration.
        profiles: the project's own.
        volumes: the custom volumes of its own.
        networks: its own networks.
    """

    project: str
    config: Config
    instances: tuple[Record, ...]
    profiles: tuple[Profile, ...]
    volumes: tuple[StorageVolume, ...]
    networks: tuple[Network, ...]


def of(session: Session, project: Project, instead: Iterable[Record] = ()) -> Holdings:
    """Return what is in a project.

    Args:
        session: a transaction.
        project: its row; its configuration may have been changed in the transaction.
        instead: instances as they shall be, which count in place of what the database has of them, if it has.
    """
    changed = {found.id: found for found in instead}
    owns_profiles = projects.scope(project, "profiles") == project.name
    present = {row.id: record(row) for row in instances.in_project(session, project.id)}
    return Holdings(
        project=project.name,
        config=project.config,
        instances=tuple((present | changed).values()),
        profiles=tuple(profiles.of_project(session, project.name)) if owns_profiles else (),
        volumes=tuple(volumes.in_project(session, project.id)),
        networks=tuple(networks.of_project(session, project.id)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """An instance or a profile, as restrictions see it.

    Attributes:
        kind: "container" or "profile".
        name: its own.
        config: an instance's expanded.
        devices: likewise.
    """

    kind: str
    name: str
    config: Config
    devices: Devices


def entities(held: Holdings) -> list[Entity]:
    """Return a project's instances and its own profiles."""
    return [
        *(
            Entity(kind=found.type, name=found.name, config=found.expanded_config, devices=found.expanded_devices)
            for found in held.instances
        ),
        *(Entity(kind="profile", name=row.name, config=row.config, devices=row.devices) for row in held.profiles),
    ]
