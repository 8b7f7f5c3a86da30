"""Snapshots that are taken on schedule, and those whose time is over.

See: LXD doc instances, snapshots.schedule
"""

from __future__ import annotations

import datetime as dt
import logging

from pylxc import validate
from pylxc.db import jobs
from pylxc.db import snapshots as rows
from pylxc.db.engine import Database
from pylxc.db.models import Clock
from pylxc.errors import PylxcError
from pylxc.services import expiry, schedules
from pylxc.services.instances.expand import Record, load_all, record
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.snapshots import Snapshots

log = logging.getLogger(__name__)

TAKE = "snapshots-take"
"""Name of the job that takes them; its last run is where the next one goes on."""
_BUSY_SECONDS = 60.0
"""How long an instance may be busy: with the other job, say, which is due at the same moment."""


class SnapshotSchedule:
    """Takes and removes snapshots as the instances' keys say; thread-safe."""

    def __init__(self, db: Database, snapshots: Snapshots, lifecycle: Lifecycle, clock: Clock) -> None:
        self._db = db
        self._snapshots = snapshots
        self._lifecycle = lifecycle
        self._clock = clock

    def take(self) -> None:
        """Take the snapshots that became due since the last run, one per instance however many were missed."""
        at = self._clock()
        with self._db.reading() as session:
            since = jobs.last_runs(session).get(TAKE, at)
            found = [one for one in load_all(session, None) if one.expanded_config.get("snapshots.schedule")]
        for one in found:
            if schedules.is_due(one.expanded_config["snapshots.schedule"], one.key, since, at) and self._is_wanted(one):
                self._take(one, at)

    def started(self, found: Record) -> None:
        """Take a snapshot of an instance that has just started, if its schedule has @startup."""
        if "@startup" in schedules.entries(found.expanded_config.get("snapshots.schedule", "")):
            self._take(found, self._clock())

    def expire(self) -> None:
        """Delete the snapshots whose time is over; one whose instance stays busy is left for the next run."""
        at = self._clock()
        with self._db.reading() as session:
            old = [(record(row.instance), row.name) for row in rows.expired(session, at)]
        for found, name in old:
            try:
                self._snapshots.remove(found, name, wait=_BUSY_SECONDS)
            except (PylxcError, OSError) as error:
                log.warning("Snapshot %s/%s has expired and cannot be deleted: %s", found.key, name, error)

    def _is_wanted(self, found: Record) -> bool:
        stopped_too = validate.is_true(found.expanded_config.get("snapshots.schedule.stopped", ""))
        return stopped_too or self._lifecycle.status(found.key) != "Stopped"

    def _take(self, found: Record, at: dt.datetime) -> None:
        try:
            name = self._snapshots.next_name(found)
            expires_at = expiry.after(at, found.expanded_config.get("snapshots.expiry", ""))
            self._snapshots.take(found.project, found.name, name, expires_at, wait=_BUSY_SECONDS)
        except (PylxcError, OSError) as error:
            log.warning("Failed taking a snapshot of instance %s on schedule: %s", found.key, error)
