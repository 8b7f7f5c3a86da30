"""Queries on networks. Callers hold the transaction; rows in state "created" are what users see.

Their names are unique on the host, whatever project they belong to: a bridge is an interface.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pylxc.db.models import Devices, Instance, Network, Profile
from pylxc.errors import NotFound


def everything(session: Session) -> list[Network]:
    """Return the created networks by name."""
    return list(session.scalars(select(Network).where(Network.state == "created").order_by(Network.name)))


def find(session: Session, name: str) -> Network | None:
    """Return the created network called `name`, None when there is none."""
    return session.scalar(select(Network).where(Network.state == "created", Network.name == name))


def get(session: Session, name: str) -> Network:
    """Return the created network called `name`.

    Raises:
        NotFound: there is none.
    """
    network = find(session, name)
    if network is None:
        raise NotFound("Network not found")
    return network


def of_project(session: Session, project_id: int) -> list[Network]:
    """Return a project's own networks in any state, by name."""
    return list(session.scalars(select(Network).where(Network.project_id == project_id).order_by(Network.name)))


def unsettled(session: Session) -> list[Network]:
    """Return the networks that a dead daemon left half made or half deleted."""
    return list(session.scalars(select(Network).where(Network.state != "created")))


def users(session: Session, *, besides: str = "") -> dict[str, list[tuple[str, str, str]]]:
    """Return per network or interface the (kind, project, name) of what has a NIC on it.

    Kind is "profile" or "instance"; an instance counts with the devices that its profiles give it. A profile called
    `besides` does not count for the parents that it names.
    """
    found: dict[str, set[tuple[str, str, str]]] = {}

    def note(devices: Devices, kind: str, project: str, name: str) -> None:
        for device in devices.values():
            if device.get("type") == "nic":
                keys = ("network",) if (kind, name) == ("profile", besides) else ("network", "parent")
                for used in {device.get(key, "") for key in keys} - {""}:
                    found.setdefault(used, set()).add((kind, project, name))

    for profile in session.scalars(select(Profile)):
        note(profile.devices, "profile", profile.project.name, profile.name)
    for instance in session.scalars(select(Instance)):
        expanded: Devices = {}
        for profile in instance.profiles:
            expanded.update(profile.devices)
        expanded.update(instance.devices)
        note(expanded, "instance", instance.project.name, instance.name)
    return {name: sorted(users) for name, users in found.items()}


def nics(session: Session) -> set[tuple[str, str, str]]:
    """Return (project, instance, device) of every NIC of every instance, in whatever state it is."""
    found = set()
    for instance in session.scalars(select(Instance)):
        expanded: Devices = {}
        for profile in instance.profiles:
            expanded.update(profile.devices)
        expanded.update(instance.devices)
        for name, device in expanded.items():
            if device.get("type") == "nic":
                found.add((instance.project.name, instance.name, name))
    return found
