"""Queries on instances. Callers hold the transaction; rows in state "created" are what users see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from pylxc.db.models import Instance, InstanceProfile, Profile, Project
from pylxc.errors import NotFound


def find(session: Session, project: str, name: str, *, state: str | None = "created") -> Instance | None:
    """Return the instance `name` of `project` in `state` (None for any), None when there is none."""
    query = select(Instance).join(Instance.project).where(Project.name == project, Instance.name == name)
    if state is not None:
        query = query.where(Instance.state == state)
    return session.scalar(query)


def get(session: Session, project: str, name: str, *, state: str | None = "created") -> Instance:
    """Return the instance `name` of `project`.

    Raises:
        NotFound: there is none in that state.
    """
    instance = find(session, project, name, state=state)
    if instance is None:
        raise NotFound("Instance not found")
    return instance


def of_project(session: Session, project: str | None) -> list[Instance]:
    """Return the created instances of `project`, of all projects when None, by name."""
    query: Select[Any] = select(Instance).join(Instance.project).where(Instance.state == "created")
    if project is not None:
        query = query.where(Project.name == project)
    return list(session.scalars(query.order_by(Project.name, Instance.name)))


def names(session: Session, project: str | None) -> list[tuple[str, str, str]]:
    """Return (project, name, type) of the created instances, like `of_project` without reading them whole."""
    query = select(Project.name, Instance.name, Instance.type).join(Instance.project)
    query = query.where(Instance.state == "created")
    if project is not None:
        query = query.where(Project.name == project)
    return [(p, n, t) for p, n, t in session.execute(query.order_by(Project.name, Instance.name))]


def with_profile(session: Session, profile_id: int) -> list[Instance]:
    """Return the created instances that have a profile."""
    having = select(InstanceProfile.instance_id).where(InstanceProfile.profile_id == profile_id)
    return list(session.scalars(select(Instance).where(Instance.state == "created", Instance.id.in_(having))))


def unsettled(session: Session) -> list[Instance]:
    """Return what a dead daemon left half made, half deleted or half renamed."""
    return list(session.scalars(select(Instance).where((Instance.state != "created") | (Instance.new_name != ""))))


def set_profiles(session: Session, instance: Instance, profiles: Iterable[Profile]) -> None:
    """Make `profiles`, in order, the instance's profiles."""
    if instance.id is not None:
        instance.profile_links.clear()
        session.flush()  # the links' primary key holds the position: old rows have to go before new ones come
    instance.profile_links.extend(
        InstanceProfile(position=position, profile=profile) for position, profile in enumerate(profiles)
    )


def claimed(session: Session, project: str) -> set[str]:
    """Return the instance names that are taken in `project`: rows in any state, and what is being renamed to."""
    query = select(Instance.name, Instance.new_name).join(Instance.project).where(Project.name == project)
    return {name for names in session.execute(query) for name in names if name}
