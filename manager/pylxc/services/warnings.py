"""Warnings: what an operator should know, kept until somebody has acknowledged or deleted it.

One is about an instance, and goes with it, or about the server. What happens again is counted, not told again.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid

from pylxc.db import models, warnings
from pylxc.db.engine import Database
from pylxc.db.models import Clock
from pylxc.errors import BadRequest
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.wire.times import timestamp
from pylxc.wire.warnings import Warning as WireWarning

log = logging.getLogger(__name__)

AUTOSTART = "Failed to autostart instance"
CRASHES = "Instance keeps crashing"
LIMIT = "Limit cannot be applied"
SIZE = "Size cannot be applied"
OUT_OF_MEMORY = "Instance ran out of memory"

_SEVERITIES = {AUTOSTART: "low", CRASHES: "moderate", LIMIT: "low", SIZE: "low", OUT_OF_MEMORY: "moderate"}
_STATUSES = {"new": "warning-reset", "acknowledged": "warning-acknowledged"}
_KEPT = dt.timedelta(days=1)
"""How long a warning is kept whose reason has gone."""


class Warnings:
    """The warnings; thread-safe."""

    def __init__(self, db: Database, events: EventBus, clock: Clock) -> None:
        self._db = db
        self._events = events
        self._clock = clock
        self._lock = threading.Lock()
        self._told: set[tuple[str, int | None]] | None = None

    def add(self, kind: str, message: str, instance_id: int | None = None, *, count: int = 1) -> None:
        """Note that something has happened, or that it has happened again.

        Args:
            kind: one of the types above.
            message: one line for the operator.
            instance_id: what it is about, None for the server; an instance that has gone meanwhile is no error.
            count: how often.
        """
        at = self._clock()
        with self._db.transaction(outlives_host=False) as session:
            if instance_id is not None and session.get(models.Instance, instance_id) is None:
                return
            row = warnings.find(session, kind, instance_id)
            level = logging.WARNING if row is None else logging.DEBUG
            if row is None:
                row = models.WarningRow(
                    uuid=str(uuid.uuid4()), type=kind, instance_id=instance_id, count=0, first_seen_at=at
                )
                session.add(row)
            elif row.status == "resolved":
                row.status = "new"
            row.count += count
            row.last_message, row.last_seen_at = message, at
        self._subjects().add((kind, instance_id))
        log.log(level, "%s: %s", kind, message)

    def resolve(self, kind: str, instance_id: int | None = None) -> None:
        """Note that the reason of a warning has gone, if there is one."""
        if (kind, instance_id) not in self._subjects():
            return
        with self._db.transaction() as session:
            if row := warnings.find(session, kind, instance_id):
                row.status = "resolved"

    def list(self, project: str | None) -> list[WireWarning]:
        """Return the warnings about a project's instances, all of them when None."""
        with self._db.reading() as session:
            found = [_render(row) for row in warnings.everything(session)]
        return [each for each in found if project in (None, each["project"])]

    def get(self, identifier: str) -> tuple[WireWarning, str]:
        """Return a warning and its entity tag; raises NotFound."""
        with self._db.reading() as session:
            found = _render(warnings.get(session, identifier))
        return found, etag.etag(found["status"])

    def set_status(self, identifier: str, status: str | None, if_match: str | None) -> None:
        """Acknowledge a warning, or make it new again.

        Raises:
            NotFound: there is none.
            BadRequest: another status than these.
            PreconditionFailed: `if_match` is of another state.
        """
        if status not in _STATUSES:
            raise BadRequest(
                f"Invalid status {status!r} of a warning", hint="a warning can be set to acknowledged or new"
            )
        with self._db.transaction() as session:
            row = warnings.get(session, identifier)
            etag.check(if_match, row.status)
            row.status = status
            project = _project(row)
        self._events.lifecycle(_STATUSES[status], f"/1.0/warnings/{identifier}", project=project)

    def delete(self, identifier: str) -> None:
        """Delete a warning; raises NotFound."""
        with self._db.transaction() as session:
            row = warnings.get(session, identifier)
            project = _project(row)
            session.delete(row)
        self._events.lifecycle("warning-deleted", f"/1.0/warnings/{identifier}", project=project)

    def expire(self) -> None:
        """Forget warnings whose reason has been gone for a day."""
        with self._db.transaction() as session:
            warnings.forget_resolved(session, self._clock() - _KEPT)

    def _subjects(self) -> set[tuple[str, int | None]]:
        """Return what there have been warnings about: most have none, and a change of a limit need not ask for one."""
        with self._lock:
            if self._told is None:
                with self._db.reading() as session:
                    self._told = {(row.type, row.instance_id) for row in warnings.everything(session)}
            return self._told


def _project(row: models.WarningRow) -> str:
    return row.instance.project.name if row.instance else ""


def _render(row: models.WarningRow) -> WireWarning:
    url, project = "/1.0", _project(row)
    if row.instance:
        suffix = "" if project == "default" else f"?project={project}"
        url = f"/1.0/instances/{row.instance.name}{suffix}"
    return {
        "uuid": row.uuid,
        "location": "none",
        "project": project,
        "type": row.type,
        "count": row.count,
        "first_seen_at": timestamp(row.first_seen_at),
        "last_seen_at": timestamp(row.last_seen_at),
        "last_message": row.last_message,
        "severity": _SEVERITIES.get(row.type, "low"),
        "status": row.status,
        "entity_url": url,
    }
