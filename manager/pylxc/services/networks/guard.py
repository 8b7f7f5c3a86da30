"""Notices that somebody has changed the packet filter, and has what pylxc needs there looked after."""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable

from pylxc.kernel import nftables

log = logging.getLogger(__name__)

QUIET_SECONDS = 1.0
MOST_SECONDS = 30.0


class Guard:
    """A thread that waits for changes of rules; costs nothing while there are none.

    Args:
        look: is called after changes, once there has been none for a moment. What it raises is logged.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._events = nftables.changes()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="rules-guard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._events.close()
        os.close(self._wake)

    def _run(self) -> None:
        while self._wait(None):
            # A firewall that reloads takes many steps, and fails where rules appear between them.
            patience = time.monotonic() + MOST_SECONDS
            while True:
                self._drain()
                changing = self._wait(QUIET_SECONDS)
                if changing is None:
                    return
                if not changing or time.monotonic() > patience:
                    break
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the next change is looked after all the same
                log.warning("Cannot look after the firewall's rules: %s", error)

    def _wait(self, seconds: float | None) -> bool | None:
        """Return whether there was a change within a time, None when the thread has to end."""
        ready, _, _ = select.select([self._events.fileno(), self._wake], [], [], seconds)
        return None if self._wake in ready else bool(ready)

    def _drain(self) -> None:
        while True:
            try:
                self._events.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more events than the socket holds: that there were any is enough
                    raise
