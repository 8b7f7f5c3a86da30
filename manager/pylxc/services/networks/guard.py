"""Notices that somebody has changed the packet filter, and has what pylxc needs there looked after."""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections.abc import Callable

from pylxc.kernel import nftables

log = logging.getLogger(__name__)

QUIET_SECONDS = 0.5


class Guard:
    """A thread that waits for changes of rules; costs nothing while there are none.

    Args:
        look: is called a moment after a change. What it raises is logged.
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
        while True:
            ready, _, _ = select.select([self._events.fileno(), self._wake], [], [])
            # One reload of a firewall is many changes.
            if self._wake in ready or select.select([self._wake], [], [], QUIET_SECONDS)[0]:
                return
            self._drain()
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
