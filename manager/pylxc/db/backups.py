"""Queries on backups. Callers hold the transaction; rows in state "created" are what users see."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pylxc.db.models import Backup
from pylxc.errors import NotFound


@dataclass(frozen=True, slots=True)
class Owner:
    """What backups are of: the row of an instance or of a volume."""

    kind: Literal["instance", "volume"]
    id: int

    @property
    def is_it(self) -> ColumnElement[bool]:
        """The condition that a backup is of it."""
        return (Backup.instance_id if self.kind == "instance" else Backup.storage_volume_id) == self.id

    def new(self, name: str) -> Backup:
        """Return a new row."""
        if self.kind == "instance":
            return Backup(instance_id=self.id, name=name)
        return Backup(storage_volume_id=self.id, name=name)


def of(session: Session, owner: Owner) -> list[Backup]:
    """Return the created backups of an instance or a volume, oldest first."""
    query = select(Backup).where(owner.is_it, Backup.state == "created")
    return list(session.scalars(query.order_by(Backup.created_at, Backup.id)))


def get(session: Session, owner: Owner, name: str) -> Backup:
    """Return a created backup; raises NotFound."""
    found = session.scalar(select(Backup).where(owner.is_it, Backup.name == name, Backup.state == "created"))
    if found is None:
        raise NotFound("Backup not found")
    return found


def claimed(session: Session, owner: Owner) -> set[str]:
    """Return the names that are taken, whatever state the backups are in."""
    return set(session.scalars(select(Backup.name).where(owner.is_it)))


def every(session: Session) -> list[Backup]:
    """Return all backups in any state."""
    return list(session.scalars(select(Backup)))


def expired(session: Session, moment: dt.datetime) -> list[Backup]:
    """Return the created backups whose time is over at `moment`."""
    return list(session.scalars(select(Backup).where(Backup.state == "created", Backup.expires_at <= moment)))
