"""Instances that are started again when they have crashed: `boot.autorestart`."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from pylxc.config.instance import INSTANCE
from pylxc.db.engine import Database
from pylxc.errors import NotFound, PylxcError
from pylxc.paths import storage_name
from pylxc.services.instances.expand import Record, load
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.warnings import CRASHES, Warnings

log = logging.getLogger(__name__)

ATTEMPTS = 10
"""Restarts in a row, at most."""
FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0
STABLE_SECONDS = 60.0
"""Who has run for this long after a restart begins anew when it crashes."""


@dataclass(slots=True)
class Series:
    """Restarts of one instance in a row. Times are those of a clock that only goes forward, in seconds."""

    count: int = 0
    started_at: float | None = None

    def next(self, at: float) -> float | None:
        """Count a crash; return the seconds until the next restart, None when there has been enough of it."""
        if self.started_at is not None and at - self.started_at >= STABLE_SECONDS:
            self.count = 0
        if self.count == ATTEMPTS:
            return None
        self.count += 1
        self.started_at = None
        return min(FIRST_SECONDS * 2.0 ** (self.count - 1), LONGEST_SECONDS)


class AutoRestarts:
    """Restarts after crashes; thread-safe.

    An ephemeral instance is not restarted: its end is its deletion.
    """

    def __init__(self, db: Database, lifecycle: Lifecycle, warnings: Warnings) -> None:
        self._db = db
        self._lifecycle = lifecycle
        self._warnings = warnings
        self._lock = threading.Lock()
        self._series: dict[str, Series] = {}
        self._waiting: dict[str, threading.Timer] = {}
        self._closing = False
        lifecycle.on_crash = self.crashed

    def crashed(self, found: Record) -> bool:
        """Plan the restart of an instance that has crashed; return whether it is to be started again."""
        if found.ephemeral or not INSTANCE.is_true(found.expanded_config, "boot.autorestart"):
            return False
        key = found.key
        with self._lock:
            if self._closing:
                return True  # by the next daemon
            seconds = self._series.setdefault(key, Series()).next(time.monotonic())
            if seconds is None:
                del self._series[key]
            else:
                timer = self._waiting[key] = threading.Timer(seconds, self._restart, (found,))
                timer.daemon = True
                timer.start()
        if seconds is None:
            text = f"Instance {found.name!r} has crashed {ATTEMPTS + 1} times in a row and is not started again"
            self._warnings.add(CRASHES, text, found.id)
            return False
        log.warning("Instance %s has crashed and is started again in %g s", key, seconds)
        return True

    def cancel(self, project: str, name: str) -> bool:
        """Give up the restart that an instance waits for; return whether there was one."""
        key = storage_name(project, name)
        with self._lock:
            timer = self._waiting.pop(key, None)
            self._series.pop(key, None)
        if timer is None:
            return False
        timer.cancel()
        self._lifecycle.give_up(project, name)
        return True

    def close(self) -> None:
        """Restart nothing any more: the next daemon does."""
        with self._lock:
            self._closing = True
            for timer in self._waiting.values():
                timer.cancel()
            self._waiting.clear()

    def _restart(self, found: Record) -> None:
        with self._lock:
            if self._waiting.pop(found.key, None) is None:
                return
        try:
            with self._db.reading() as session:
                current = load(session, found.project, found.name)
            if current.id == found.id and self._lifecycle.status(found.key) == "Stopped":
                self._try(current)
        except NotFound:
            log.info("Instance %s is gone and not started again", found.key)

    def _try(self, found: Record) -> None:
        try:
            if not INSTANCE.is_true(found.expanded_config, "boot.autorestart"):
                self._lifecycle.give_up(found.project, found.name)
                return
            self._lifecycle.start(found.project, found.name)
        except (PylxcError, OSError) as error:
            if self._lifecycle.status(found.key) != "Stopped":
                return
            log.warning("Failed starting instance %s again: %s", found.key, error)
            if not self.crashed(found):
                self._lifecycle.give_up(found.project, found.name)
        else:
            with self._lock:
                if found.key in self._series:
                    self._series[found.key].started_at = time.monotonic()
