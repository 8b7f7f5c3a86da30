"""The door of a project: nothing is in it that its limits and restrictions do not allow.

What changes instances, profiles, volumes or networks calls `check` at the end of its transaction. Transactions come one
after another, so two of them cannot take the last place both.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from pylxc.db import projects
from pylxc.db.models import Project
from pylxc.services.instances.expand import Record
from pylxc.services.projects import holdings, limits, restrictions


def check(session: Session, project: Project, instead: Iterable[Record] = ()) -> None:
    """Check a project as a transaction leaves it.

    Args:
        session: the transaction.
        project: the project's row.
        instead: instances as they shall be, in place of what the database has of them.

    Raises:
        Forbidden: something in it is not allowed, or it holds more than it may; the thing is named.
    """
    if not (limits.is_limited(project.config) or restrictions.is_restricted(project.config)):
        return
    session.flush()
    held = holdings.of(session, project, instead)
    limits.check(held)
    restrictions.check(held)


def check_changed(session: Session, project: Project, before: dict[str, str]) -> None:
    """Check a project whose configuration has changed in a transaction; `before` is what it was.

    Raises:
        Forbidden: a limit is below what is used, or something in the project is not allowed any more; it is named.
    """
    session.flush()
    held = holdings.of(session, project)
    limits.check_changed(held, before)
    restrictions.check(held)


def refuse_snapshots(session: Session, project: str) -> None:
    """Check that snapshots may be made in a project; raises Forbidden, and NotFound for the project."""
    config = projects.get(session, project).config
    restrictions.refuse(config, "snapshots", f'Project "{project}" doesn\'t allow for snapshot creation')


def refuse_backups(session: Session, project: str) -> None:
    """Check that backups may be made in a project; raises Forbidden, and NotFound for the project."""
    config = projects.get(session, project).config
    restrictions.refuse(config, "backups", f'Project "{project}" doesn\'t allow for backup creation')
