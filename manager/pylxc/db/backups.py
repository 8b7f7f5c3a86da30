"""Queries on backups of instances. Callers hold the transaction; rows in state "created" are what users see."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from pylxc.db.models import Backup, Instance, Project
from pylxc.errors import NotFound


def of_instance(session: Session, instance_id: int) -> list[Backup]:
    """Return an instance's created backups, oldest first."""
    query = select(Backup).where(Backup.instance_id == instance_id, Backup.state == "created")
    return list(session.scalars(query.order_by(Backup.created_at, Backup.id)))


def get(session: Session, project: str, instance: str, name: str, *, state: str | None = "created") -> Backup:
    """Return a backup in `state` (None for any).

    Raises:
        NotFound: there is none.
    """
    query = (
        select(Backup)
        .join(Instance, Instance.id == Backup.instance_id)
        .join(Project, Project.id == Instance.project_id)
        .where(Project.name == project, Instance.name == instance, Backup.name == name)
    )
    if state is not None:
        query = query.where(Backup.state == state)
    found = session.scalar(query)
    if found is None:
        raise NotFound("Backup not found")
    return found


def claimed(session: Session, instance_id: int) -> set[str]:
    """Return the names that are taken among an instance's backups, whatever state these are in."""
    return set(session.scalars(select(Backup.name).where(Backup.instance_id == instance_id)))


def every(session: Session) -> list[Backup]:
    """Return all backups in any state."""
    return list(session.scalars(select(Backup).options(joinedload(Backup.instance))))


def expired(session: Session, moment: dt.datetime) -> list[Backup]:
    """Return the created backups whose time is over at `moment`."""
    query = select(Backup).where(Backup.state == "created", Backup.expires_at <= moment)
    return list(session.scalars(query.options(joinedload(Backup.instance))))
