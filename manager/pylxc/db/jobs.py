"""When periodic jobs last ran. Callers hold the transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pylxc.db.models import Job


def last_runs(session: Session) -> dict[str, dt.datetime]:
    """Return when each job last ran, by its name."""
    return {row.name: row.last_ran_at for row in session.scalars(select(Job))}


def record(session: Session, name: str, at: dt.datetime) -> None:
    """Note that a job ran at `at`."""
    session.merge(Job(name=name, last_ran_at=at))


def forget(session: Session, names: Iterable[str]) -> None:
    """Forget jobs that there are no more."""
    session.execute(delete(Job).where(Job.name.in_(names)))
