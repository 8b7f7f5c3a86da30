"""Queries on snapshots of instances. Callers hold the transaction; rows in state "created" are what users see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from pylxc.db.models import Instance, Project, Snapshot
from pylxc.errors import NotFound


def of_instances(session: Session, instance_ids: Iterable[int]) -> dict[int, list[Snapshot]]:
    """Return the created snapshots by the instance's id, oldest first."""
    ids = list(instance_ids)
    found: dict[int, list[Snapshot]] = {}
    query = select(Snapshot).where(Snapshot.state == "created").order_by(Snapshot.created_at, Snapshot.id)
    if len(ids) == 1:
        query = query.where(Snapshot.instance_id == ids[0])
    wanted = set(ids)
    for snapshot in session.scalars(query):
        if snapshot.instance_id in wanted:
            found.setdefault(snapshot.instance_id, []).append(snapshot)
    return found


def find(session: Session, project: str, instance: str, name: str, *, state: str | None = "created") -> Snapshot | None:
    """Return a snapshot in `state` (None for any), None when there is none."""
    query = (
        select(Snapshot)
        .join(Instance, Instance.id == Snapshot.instance_id)
        .join(Project, Project.id == Instance.project_id)
        .where(Project.name == project, Instance.name == instance, Snapshot.name == name)
    )
    if state is not None:
        query = query.where(Snapshot.state == state)
    return session.scalar(query)


def get(session: Session, project: str, instance: str, name: str, *, state: str | None = "created") -> Snapshot:
    """Return a snapshot.

    Raises:
        NotFound: there is none in that state.
    """
    found = find(session, project, instance, name, state=state)
    if found is None:
        raise NotFound("Snapshot not found")
    return found


def claimed(session: Session, instance_id: int) -> set[str]:
    """Return the names that are taken among an instance's snapshots, whatever state these are in."""
    query = select(Snapshot.name, Snapshot.new_name).where(Snapshot.instance_id == instance_id)
    return {name for names in session.execute(query) for name in names if name}


def unsettled(session: Session) -> list[Snapshot]:
    """Return what a dead daemon left half made, half deleted or half renamed."""
    query = select(Snapshot).where((Snapshot.state != "created") | (Snapshot.new_name != ""))
    return list(session.scalars(query.options(joinedload(Snapshot.instance))))


def expired(session: Session, moment: dt.datetime) -> list[Snapshot]:
    """Return the created snapshots whose time is over at `moment`."""
    query = select(Snapshot).where(Snapshot.state == "created", Snapshot.expires_at <= moment)
    return list(session.scalars(query.options(joinedload(Snapshot.instance))))
