"""Queries on warnings. Callers hold the transaction."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pylxc.db.models import WarningRow
from pylxc.errors import NotFound


def everything(session: Session) -> list[WarningRow]:
    """Return all warnings, the newest last."""
    return list(session.scalars(select(WarningRow).order_by(WarningRow.last_seen_at, WarningRow.id)))


def get(session: Session, uuid: str) -> WarningRow:
    """Return a warning; raises NotFound."""
    found = session.scalar(select(WarningRow).where(WarningRow.uuid == uuid))
    if found is None:
        raise NotFound("Warning not found")
    return found


def find(session: Session, kind: str, instance_id: int | None) -> WarningRow | None:
    """Return the warning of a type about an instance, about the server when None; None when there is none."""
    return session.scalar(
        select(WarningRow).where(WarningRow.type == kind, WarningRow.instance_id == instance_id).limit(1)
    )


def forget_resolved(session: Session, before: dt.datetime) -> None:
    """Delete what was resolved and last seen before a time."""
    session.execute(delete(WarningRow).where(WarningRow.status == "resolved", WarningRow.last_seen_at < before))
