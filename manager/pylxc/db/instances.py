"""Queries on instances. Callers hold the transaction; rows in state "created" are what users see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session, contains_eager, joinedload

from pylxc.db.engine import note
from pylxc.db.models import Config, Devices, Instance, InstanceProfile, Profile, Project
from pylxc.errors import NotFound


def find(session: Session, project: str, name: str, *, state: str | None = "created") -> Instance | None:
    """Return the instance `name` of `project` in `state` (None for any), None when there is none."""
    given = {"project": project, "name": name, "state": state}
    return session.scalars(_FIND if state is None else _FIND_IN_STATE, given).unique().one_or_none()


# Made once, and one query in place of two: putting a statement together takes longer than executing it.
_FIND = (
    select(Instance)
    .join(Instance.project)
    .options(
        contains_eager(Instance.project),
        joinedload(Instance.profile_links).joinedload(InstanceProfile.profile),
    )
    .where(Project.name == bindparam("project"), Instance.name == bindparam("name"))
)
_FIND_IN_STATE = _FIND.where(Instance.state == bindparam("state"))


def get(session: Session, project: str, name: str, *, state: str | None = "created") -> Instance:
    """Return the instance `name` of `project`.

    Raises:
        NotFound: there is none in that state.
    """
    instance = find(session, project, name, state=state)
    if instance is None:
        raise NotFound("Instance not found")
    return instance


@dataclass(frozen=True, slots=True)
class Touched:
    """What `Database.watch` tells of an instance that a statement has changed."""

    instance_id: int


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What a profile gives to its instances."""

    name: str
    config: Config
    devices: Devices


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """A created instance with its profiles, read without the ORM's bookkeeping: lists are read often, and whole."""

    id: int
    project: str
    name: str
    type: str
    architecture: str
    description: str
    config: Config
    devices: Devices
    ephemeral: bool
    stateful: bool
    created_at: dt.datetime
    last_used_at: dt.datetime | None
    profiles: tuple[ProfileFacts, ...]


def facts(session: Session, project: str | None, name: str | None = None) -> list[InstanceFacts]:
    """Return the created instances of `project` (None: all) and of `name` (None: all), by project and name."""
    reads = _READS[project is not None, name is not None]
    given = {"project": project, "name": name}
    connection = session.connection()
    rows = connection.execute(reads.facts, given).all()
    if not rows:
        return []
    links: dict[int, list[int]] = {}
    for instance_id, profile_id in connection.execute(reads.links, given):
        links.setdefault(instance_id, []).append(profile_id)
    found = {
        row.id: ProfileFacts(row.name, row.config, row.devices) for row in connection.execute(reads.profiles, given)
    }
    return [InstanceFacts(**row._mapping, profiles=tuple(found[i] for i in links.get(row.id, ()))) for row in rows]


class _Reads:
    """The statements of `facts`, made once: putting one together takes longer than executing it."""

    def __init__(self, *, project: bool, name: bool) -> None:
        wanted = [Instance.state == "created"]
        if project:
            wanted.append(Project.name == bindparam("project"))
        if name:
            wanted.append(Instance.name == bindparam("name"))
        links = select(InstanceProfile.instance_id, InstanceProfile.profile_id)
        links = links.join(Instance, Instance.id == InstanceProfile.instance_id)
        links = links.join(Project, Project.id == Instance.project_id).where(*wanted)
        self.facts = _FACTS.where(*wanted)
        self.links = links.order_by(InstanceProfile.instance_id, InstanceProfile.position)
        used = Profile.id.in_(links.with_only_columns(InstanceProfile.profile_id))
        self.profiles = select(Profile.id, Profile.name, Profile.config, Profile.devices).where(used)


_FACTS = (
    select(
        Instance.id,
        Project.name.label("project"),
        Instance.name,
        Instance.type,
        Instance.architecture,
        Instance.description,
        Instance.config,
        Instance.devices,
        Instance.ephemeral,
        Instance.stateful,
        Instance.created_at,
        Instance.last_used_at,
    )
    .join(Project, Project.id == Instance.project_id)
    .order_by(Project.name, Instance.name)
)
_READS = {(p, n): _Reads(project=p, name=n) for p in (False, True) for n in (False, True)}


def in_project(session: Session, project_id: int) -> list[Instance]:
    """Return a project's instances in any state, by name."""
    return list(session.scalars(select(Instance).where(Instance.project_id == project_id).order_by(Instance.name)))


def names(session: Session, project: str | None) -> list[tuple[str, str, str]]:
    """Return (project, name, type) of the created instances, like `facts` without reading them whole."""
    query = select(Project.name, Instance.name, Instance.type).join(Instance.project)
    query = query.where(Instance.state == "created")
    if project is not None:
        query = query.where(Project.name == project)
    return [(p, n, t) for p, n, t in session.execute(query.order_by(Project.name, Instance.name))]


def ids(session: Session) -> list[int]:
    """Return the ids of the created instances."""
    return list(session.scalars(select(Instance.id).where(Instance.state == "created")))


def with_profile(session: Session, profile_id: int) -> list[Instance]:
    """Return the created instances that have a profile."""
    having = select(InstanceProfile.instance_id).where(InstanceProfile.profile_id == profile_id)
    return list(session.scalars(select(Instance).where(Instance.state == "created", Instance.id.in_(having))))


def run_facts(session: Session, instance_id: int) -> tuple[Config, dict[str, Any]]:
    """Return an instance's own configuration and the devices that it has; raises NotFound."""
    row = session.execute(select(Instance.config, Instance.attached).where(Instance.id == instance_id)).first()
    if row is None:
        raise NotFound("Instance not found")
    return row.config, row.attached


def set_run_facts(session: Session, instance_id: int, config: Config, attached: dict[str, Any]) -> None:
    """Change what `run_facts` returns."""
    query = update(Instance).where(Instance.id == instance_id).values(config=config, attached=attached)
    session.execute(query, execution_options={"synchronize_session": False})


def set_state(session: Session, instance_id: int, state: str) -> None:
    """Change an instance's state."""
    query = update(Instance).where(Instance.id == instance_id).values(state=state)
    session.execute(query, execution_options={"synchronize_session": False})
    note(session, Touched(instance_id))


def remove(session: Session, instance_id: int) -> None:
    """Delete an instance's row, and with it those of its snapshots, backups and profiles."""
    query = delete(Instance).where(Instance.id == instance_id)
    session.execute(query, execution_options={"synchronize_session": False})


def with_devices(session: Session) -> list[Instance]:
    """Return the created instances that have devices, as those that run do."""
    rows = session.scalars(select(Instance).where(Instance.state == "created"))
    return [row for row in rows if row.attached]


def unsettled(session: Session) -> list[Instance]:
    """Return what a dead daemon left half made, half deleted or half renamed."""
    return list(session.scalars(select(Instance).where((Instance.state != "created") | (Instance.new_name != ""))))


def restoring(session: Session) -> list[Instance]:
    """Return the instances that a dead daemon was bringing back to a snapshot."""
    return list(session.scalars(select(Instance).where(Instance.restoring != "")))


def set_profiles(session: Session, instance: Instance, profiles: Iterable[Profile]) -> None:
    """Make `profiles`, in order, the instance's profiles."""
    profiles = list(profiles)
    if instance.id is not None:
        if instance.profiles == profiles:
            return
        instance.profile_links.clear()
        session.flush()  # the links' primary key holds the position: old rows have to go before new ones come
    instance.profile_links.extend(
        InstanceProfile(position=position, profile=profile) for position, profile in enumerate(profiles)
    )


def claimed(session: Session, project: str) -> set[str]:
    """Return the instance names that are taken in `project`: rows in any state, and what is being renamed to."""
    query = select(Instance.name, Instance.new_name).join(Instance.project).where(Project.name == project)
    return {name for names in session.execute(query) for name in names if name}
