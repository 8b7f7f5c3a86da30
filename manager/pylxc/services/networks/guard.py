"""Notices that somebody has changed the packet filter, and has what pylxc needs there looked after."""

from __future__ import annotations

import errno
import logging
import select
import time
from collections.abc import Callable

from pylxc.kernel import nftables
from pylxc.kernel.waiting import Waiting

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
        self._waiting = Waiting("rules-guard", self._run, {self._events.fileno(): select.POLLIN})

    def close(self) -> None:
        """End the thread."""
        self._waiting.close()
        self._events.close()

    def _run(self, waiting: Waiting) -> None:
        while waiting.wait():
            # A firewall that reloads takes many steps, and fails where rules appear between them.
            patience = time.monotonic() + MOST_SECONDS
            while True:
                self._drain()
                changing = waiting.wait(QUIET_SECONDS)
                if changing is None:
                    return
                if not changing or time.monotonic() > patience:
                    break
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the next change is looked after all the same
                log.warning("Cannot look after the firewall's rules: %s", error)

    def _drain(self) -> None:
        while True:
            try:
                self._events.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more events than the socket holds: that there were any is enough
                    raise
