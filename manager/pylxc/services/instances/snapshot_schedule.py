"""Snapshots that are taken on schedule, and snapshots and backups whose time is over.

See: LXD doc instances, snapshots.schedule
"""

from __future__ import annotations

import datetime as dt
import logging
import zlib

from pylxc import validate
from pylxc.db import backups, jobs
from pylxc.db import snapshots as rows
from pylxc.db.engine import Database
from pylxc.db.models import Clock
from pylxc.errors import PylxcError
from pylxc.services import expiry
from pylxc.services.instances.backups import Backups
from pylxc.services.instances.expand import Record, load_all, record
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.snapshots import Snapshots

log = logging.getLogger(__name__)

TAKE = "snapshots-take"
"""Name of the job that takes them; its last run is where the next one goes on."""

_ALIASES = {
    "hourly": "{minute} * * * *",
    "daily": "{minute} {hour} * * *",
    "midnight": "{minute} 0 * * *",
    "weekly": "{minute} {hour} * * 0",
    "monthly": "{minute} {hour} 1 * *",
    "annually": "{minute} {hour} 1 1 *",
    "yearly": "{minute} {hour} 1 1 *",
}


class SnapshotSchedule:
    """Takes and removes snapshots as the instances' keys say; thread-safe."""

    def __init__(
        self, db: Database, snapshots: Snapshots, backups_: Backups, lifecycle: Lifecycle, clock: Clock
    ) -> None:
        self._db = db
        self._snapshots = snapshots
        self._backups = backups_
        self._lifecycle = lifecycle
        self._clock = clock

    def take(self) -> None:
        """Take the snapshots that became due since the last run, one per instance however many were missed."""
        at = self._clock()
        with self._db.reading() as session:
            since = jobs.last_runs(session).get(TAKE, at)
            found = [one for one in load_all(session, None) if one.expanded_config.get("snapshots.schedule")]
        for one in found:
            if is_due(one.expanded_config["snapshots.schedule"], one.key, since, at) and self._is_wanted(one):
                self._take(one, at)

    def started(self, found: Record) -> None:
        """Take a snapshot of an instance that has just started, if its schedule has @startup."""
        if "@startup" in _entries(found.expanded_config.get("snapshots.schedule", "")):
            self._take(found, self._clock())

    def expire(self) -> None:
        """Delete the snapshots and backups whose time is over; one whose instance is busy is left for the next run."""
        at = self._clock()
        with self._db.reading() as session:
            old = [(record(row.instance), row.name) for row in rows.expired(session, at)]
            old_backups = [row.id for row in backups.expired(session, at)]
        for found, name in old:
            try:
                self._snapshots.remove(found, name)
            except PylxcError as error:
                log.warning("Snapshot %s/%s has expired and cannot be deleted: %s", found.key, name, error)
        for backup in old_backups:
            self._backups.drop(backup)

    def _is_wanted(self, found: Record) -> bool:
        stopped_too = validate.is_true(found.expanded_config.get("snapshots.schedule.stopped", ""))
        return stopped_too or self._lifecycle.status(found.key) != "Stopped"

    def _take(self, found: Record, at: dt.datetime) -> None:
        try:
            name = self._snapshots.next_name(found)
            expires_at = expiry.after(at, found.expanded_config.get("snapshots.expiry", ""))
            self._snapshots.take(found.project, found.name, name, expires_at)
        except PylxcError as error:
            log.warning("Failed taking a snapshot of instance %s on schedule: %s", found.key, error)


def is_due(schedule: str, key: str, since: dt.datetime, at: dt.datetime) -> bool:
    """Tell whether a moment of a schedule lies after `since` and not after `at`.

    Args:
        schedule: as `validate.schedule` allows it; cron fields are in the host's time zone.
        key: of the instance: @hourly and the like are spread over the hour and the day by it, always alike.
        since: when it was looked last.
        at: now.
    """
    from croniter import croniter

    local = at.astimezone()
    number = zlib.crc32(key.encode())
    for entry in _entries(schedule):
        fields = _ALIASES.get(entry[1:]) if entry.startswith("@") else entry
        if fields is None:
            continue  # @startup and @never
        fields = fields.format(minute=number % 60, hour=number // 60 % 24)
        # A second later, so that the moment `at` itself counts.
        last: dt.datetime = croniter(fields, local + dt.timedelta(seconds=1)).get_prev(dt.datetime)
        if since < last <= at:
            return True
    return False


def _entries(schedule: str) -> list[str]:
    if not schedule.lstrip().startswith("@"):
        return [schedule] if schedule.strip() else []
    return [entry.strip() for entry in schedule.split(",")]
