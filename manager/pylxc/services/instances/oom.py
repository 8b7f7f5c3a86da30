"""Processes of instances that the kernel kills for want of memory: a warning for the operator, and an event.

A guest can have that happen thousands of times a second; it is told of once a second at most.
"""

from __future__ import annotations

import logging
import threading

from pylxc.db.engine import Database
from pylxc.errors import NotFound, PylxcError
from pylxc.paths import split_key
from pylxc.services.events import EventBus
from pylxc.services.instances.expand import load
from pylxc.services.warnings import OUT_OF_MEMORY, Warnings

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0


class OutOfMemory:
    """Tells of kills; thread-safe."""

    def __init__(self, db: Database, events: EventBus, warnings: Warnings) -> None:
        self._db = db
        self._events = events
        self._warnings = warnings
        self._lock = threading.Lock()
        self._kills: dict[str, int] = {}
        self._is_telling = False

    def note(self, key: str, kills: int) -> None:
        """Take note of kills in an instance; returns at once."""
        with self._lock:
            self._kills[key] = self._kills.get(key, 0) + kills
            if self._is_telling:
                return
            self._is_telling = True
        threading.Thread(target=self._tell_all, name="out-of-memory", daemon=True).start()

    def _tell_all(self) -> None:
        pause = threading.Event()
        while True:
            with self._lock:
                kills, self._kills = self._kills, {}
                if not kills:
                    self._is_telling = False
                    return
            for key, count in kills.items():
                try:
                    self._tell(key, count)
                except PylxcError as error:
                    log.error("Failed telling that instance %s is out of memory: %s", key, error)
            pause.wait(PAUSE_SECONDS)

    def _tell(self, key: str, kills: int) -> None:
        project, name = split_key(key)
        try:
            with self._db.reading() as session:
                found = load(session, project, name)
        except NotFound:
            return
        limit = found.expanded_config.get("limits.memory", "")
        what = f"limits.memory is {limit}" if limit else "it has no limits.memory"
        processes = "1 process was" if kills == 1 else f"{kills} processes were"
        self._warnings.add(OUT_OF_MEMORY, f"{processes} killed in instance {name!r}: {what}", found.id, count=kills)
        context = {"kills": kills, "limit": limit}
        self._events.lifecycle("instance-oom", f"/1.0/instances/{name}", project=project, context=context)
