"""Instances that start with the host and stop with it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from pylxc import validate
from pylxc.config.instance import INSTANCE
from pylxc.db.engine import Database
from pylxc.errors import BadRequest, Conflict, NotFound, PylxcError
from pylxc.runtime.handle import Runtime
from pylxc.services.instances.expand import POWER, Record, load_all
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.storage.service import StoragePools
from pylxc.services.warnings import AUTOSTART, Warnings

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_PAUSE_SECONDS = 5.0
_AT_ONCE = max(4, os.cpu_count() or 1)
"""How many are started beside each other: enough that none waits for another's disk, and a small host stays usable."""
_LAST_START_SECONDS = 15.0
"""How long `close` waits for starts that have begun."""


class Boot:
    """Starts and stops instances together; thread-safe."""

    def __init__(
        self, db: Database, runtime: Runtime, storage: StoragePools, lifecycle: Lifecycle, warnings: Warnings
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._storage = storage
        self._lifecycle = lifecycle
        self._warnings = warnings
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._failed: set[str] = set()
        """Keys of what is to run and could not be started."""

    def start_all(self) -> None:
        """Start what is to run with the host, and return when that is done.

        The highest priority comes first. Instances of the same priority are started beside each other, but one with a
        delay is the last of those: what follows by priority and name waits until it has started, and for the delay.
        """
        with self._db.reading() as session:
            wanted = [found for found in load_all(session, None) if _is_autostarted(found)]
        self._start(wanted)

    def start_failed(self) -> None:
        """Try again to start what could not be: a pool has come back that may have been the reason."""
        with self._db.reading() as session:
            wanted = [found for found in load_all(session, None) if found.key in self._failed]
        self._start(wanted)

    def close(self) -> None:
        """Start nothing any more, and wait for what is being started."""
        self._closing.set()
        if self._starting.acquire(timeout=_LAST_START_SECONDS):
            self._starting.release()

    def stop_all(self) -> None:
        """Stop every container for the host to go down, the highest `boot.stop.priority` first.

        What ran is started again with the daemon.
        """
        self.close()
        self._lifecycle.host_goes_down()
        with self._db.reading() as session:
            records = load_all(session, None)
        running = [found for found in records if self._runtime.get(found.key) is not None]
        for priority in sorted({_number(found, "boot.stop.priority") for found in running}, reverse=True):
            group = [found for found in running if _number(found, "boot.stop.priority") == priority]
            with ThreadPoolExecutor(len(group)) as pool:
                list(pool.map(self._stop, group))
        for key in sorted(set(self._runtime.keys())):
            log.warning("Killing container %s, which no instance has or which did not stop", key)
            try:
                self._runtime.kill(key)
            except PylxcError as error:
                log.warning("Failed killing container %s: %s", key, error)

    def _start(self, wanted: Iterable[Record]) -> None:
        stopped = [found for found in wanted if self._runtime.get(found.key) is None]
        with self._starting, ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="autostart") as pool:
            for batch in batches(stopped):
                has_started = list(pool.map(self._autostart, batch))
                # A delay is for what needs the started one.
                if has_started[-1]:
                    self._closing.wait(_number(batch[-1], "boot.autostart.delay"))

    def _autostart(self, found: Record) -> bool:
        """Start an instance; return whether it has been. Nothing that is wrong with it keeps others from starting."""
        error = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._closing.wait(_PAUSE_SECONDS)
            if self._closing.is_set():
                return False
            self._failed.add(found.key)  # Before a look at its pool, which may be coming back.
            if (away := _pool(found)) and not self._storage.is_available(away):
                error = f"Storage pool {away!r} is unavailable"
                break
            try:
                self._lifecycle.start(found.project, found.name)
            except (Conflict, NotFound) as reason:
                if isinstance(reason, Conflict) and self._runtime.get(found.key) is None:
                    error = str(reason)  # something else is done with it just now
                    continue
                self._failed.discard(found.key)
                log.info("Not starting instance %s: %s", found.key, reason)
                return False
            except (PylxcError, OSError) as reason:
                error = str(reason)
                if self._runtime.get(found.key) is None:
                    log.warning("Failed starting instance %s, attempt %d: %s", found.key, attempt + 1, error)
                    continue
            except Exception:
                log.exception("Failed starting instance %s, attempt %d", found.key, attempt + 1)
                error = "Internal error: see the server's log"
                continue
            self._failed.discard(found.key)
            self._warnings.resolve(AUTOSTART, found.id)
            return True
        if not self._closing.is_set():
            self._warnings.add(AUTOSTART, error, found.id)
        return False

    def _stop(self, found: Record) -> None:
        try:
            self._lifecycle.stop_with_host(found, _number(found, "boot.host_shutdown_timeout"))
        except PylxcError as error:
            log.warning("Failed stopping instance %s: %s", found.key, error)
        except Exception:
            log.exception("Failed stopping instance %s", found.key)


def batches(records: list[Record]) -> Iterator[list[Record]]:
    """Yield what is started at the same time, in order; see `Boot.start_all`. Only the last of a batch has a delay."""

    def priority(found: Record) -> int:
        return -_number(found, "boot.autostart.priority")

    for _, group in groupby(sorted(records, key=lambda found: (priority(found), found.name)), priority):
        batch: list[Record] = []
        for found in group:
            batch.append(found)
            if _number(found, "boot.autostart.delay"):
                yield batch
                batch = []
        if batch:
            yield batch


def _is_autostarted(found: Record) -> bool:
    wanted = found.expanded_config.get("boot.autostart", "")
    return validate.is_true(wanted) or (not wanted and found.config.get(POWER) == "RUNNING")


def _pool(found: Record) -> str:
    try:
        return found.pool
    except BadRequest:
        return ""  # No start gets past that; it says what is wrong.


def _number(found: Record, key: str) -> int:
    return min(int(INSTANCE.value(found.expanded_config, key)), int(threading.TIMEOUT_MAX))
