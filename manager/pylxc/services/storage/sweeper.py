"""Frees what deleted volumes took, in the background: a tree goes out of sight at once, its blocks take seconds."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from pylxc.drivers.storage.driver import StorageDriver
from pylxc.errors import PylxcError

log = logging.getLogger(__name__)


class Sweeper:
    """One thread that empties pools' trash; what a dead daemon left there is swept at the next start."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage-sweeper")
        self._lock = threading.Lock()
        self._waiting = 0

    def add(self, driver: StorageDriver) -> None:
        """Have a pool's trash emptied soon."""
        with self._lock:
            self._waiting += 1
        self._thread.submit(self._sweep, driver)

    def _sweep(self, driver: StorageDriver) -> None:
        try:
            driver.sweep()
        except PylxcError as error:
            log.warning("Cannot free what deleted volumes took: %s", error)
        finally:
            with self._lock:
                self._waiting -= 1

    def finish(self) -> bool:
        """Wait until all is freed; return whether there was anything to wait for."""
        with self._lock:
            is_busy = self._waiting > 0
        self._thread.submit(lambda: None).result()
        return is_busy
