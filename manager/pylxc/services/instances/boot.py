"""Instances that start with the daemon and stop with the host."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from pylxc import validate
from pylxc.config.instance import INSTANCE
from pylxc.db.engine import Database
from pylxc.errors import Conflict, NotFound, PylxcError
from pylxc.runtime.handle import Runtime
from pylxc.services.instances.expand import POWER, Record, load_all
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.storage.service import StoragePools

log = logging.getLogger(__name__)

_AUTOSTART_ATTEMPTS = 3
_AUTOSTART_PAUSE = 5.0


class Boot:
    """Starts and stops instances together."""

    def __init__(self, db: Database, runtime: Runtime, storage: StoragePools, lifecycle: Lifecycle) -> None:
        self._db = db
        self._runtime = runtime
        self._storage = storage
        self._lifecycle = lifecycle

    def start_all(self, pool: str = "") -> None:
        """Start what is to run with the daemon, by priority; a failure is logged and the next one is tried.

        Args:
            pool: only what is in this one, which could not be used so far.
        """
        with self._db.reading() as session:
            records = [found for found in load_all(session, None) if pool in ("", found.pool)]
        wanted = [found for found in records if _is_autostarted(found) and self._runtime.get(found.key) is None]
        for found in sorted(wanted, key=lambda f: -_number(f, "boot.autostart.priority")):
            if self._storage.is_available(found.pool):
                self._autostart(found)
            time.sleep(_number(found, "boot.autostart.delay"))

    def stop_all(self) -> None:
        """Stop every container for the host to go down; they are started again with the daemon."""
        with self._db.reading() as session:
            records = load_all(session, None)
        running = [found for found in records if self._runtime.get(found.key) is not None]
        for priority in sorted({_number(found, "boot.stop.priority") for found in running}, reverse=True):
            group = [found for found in running if _number(found, "boot.stop.priority") == priority]
            with ThreadPoolExecutor(len(group)) as pool:
                list(pool.map(self._stop_for_shutdown, group))
        for key in set(self._runtime.keys()):
            log.warning("Killing container %s, which is no instance's", key)
            try:
                self._runtime.kill(key)
            except PylxcError as error:
                log.warning("Failed killing container %s: %s", key, error)

    def _stop_for_shutdown(self, found: Record) -> None:
        timeout = float(_number(found, "boot.host_shutdown_timeout"))
        try:
            try:
                self._lifecycle.stop(found.project, found.name, force=False, timeout=timeout)
            except PylxcError:
                self._lifecycle.stop(found.project, found.name, force=True, timeout=None)
            if not found.ephemeral:
                self._lifecycle.mark_running(found.project, found.name)
        except (PylxcError, OSError) as error:
            log.warning("Failed stopping instance %s: %s", found.key, error)

    def _autostart(self, found: Record) -> None:
        for attempt in range(1, _AUTOSTART_ATTEMPTS + 1):
            try:
                self._lifecycle.start(found.project, found.name)
            except (Conflict, NotFound):
                return
            except (PylxcError, OSError) as error:
                log.warning("Failed starting instance %s, attempt %d: %s", found.key, attempt, error)
                if attempt < _AUTOSTART_ATTEMPTS:
                    time.sleep(_AUTOSTART_PAUSE)
            else:
                return


def _is_autostarted(found: Record) -> bool:
    wanted = found.expanded_config.get("boot.autostart", "")
    return validate.is_true(wanted) or (not wanted and found.config.get(POWER) == "RUNNING")


def _number(found: Record, key: str) -> int:
    return int(INSTANCE.value(found.expanded_config, key))
