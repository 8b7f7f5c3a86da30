"""Watches helper processes and has one that dies started again, later and later when it goes on dying."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pylxc.kernel.waiting import Waiting

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
LAST_DELAY = 60.0
STEADY_SECONDS = 60.0


@dataclass(slots=True)
class _Watched:
    pidfd: int = -1
    since: float = 0.0
    delay: float = FIRST_DELAY
    restart_at: float | None = None


class Keeper:
    """A thread that waits for helpers to die; costs nothing while they live.

    Args:
        what: they are helpers of, in a word: "network".
        restart: starts a helper by its name and returns its pidfd, None when it is not needed any more. What it
            raises is logged, and it is tried again.
    """

    def __init__(self, what: str, restart: Callable[[str], int | None]) -> None:
        self._what = what
        self._restart = restart
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._waiting = Waiting(f"{what}-keeper", self._run, {})

    def watch(self, name: str, pidfd: int | None) -> None:
        """Watch the helper `name` by its pidfd, which becomes the keeper's; None watches it no more."""
        with self._lock:
            old = self._watched.pop(name, None)
            if old is not None and old.pidfd >= 0:
                os.close(old.pidfd)
            if pidfd is not None:
                delay = old.delay if old is not None else FIRST_DELAY
                self._watched[name] = _Watched(pidfd=pidfd, since=time.monotonic(), delay=delay)
        self._waiting.wake()

    def close(self) -> None:
        """End the thread; the helpers go on."""
        self._waiting.close()
        for watched in self._watched.values():
            if watched.pidfd >= 0:
                os.close(watched.pidfd)
        self._watched.clear()

    def _run(self, waiting: Waiting) -> None:
        ready: set[int] | None = set()
        while ready is not None:
            with self._lock:
                by_fd = {w.pidfd: name for name, w in self._watched.items() if w.pidfd >= 0}
                due = min((w.restart_at for w in self._watched.values() if w.restart_at is not None), default=None)
                # A copy of each descriptor: `watch` may close the first, and its number may be somebody else's then.
                copies = {os.dup(fd): name for fd, name in by_fd.items()}
            ready = waiting.wait(None if due is None else max(0.0, due - time.monotonic()), copies)
            for fd in copies:
                os.close(fd)
            for fd in ready or ():
                self._died(copies[fd])
            self._restart_due(waiting)

    def _died(self, name: str) -> None:
        with self._lock:
            watched = self._watched.get(name)
            if watched is None or watched.pidfd < 0 or not _is_readable(watched.pidfd):
                return
            os.close(watched.pidfd)
            watched.pidfd = -1
            if time.monotonic() - watched.since > STEADY_SECONDS:
                watched.delay = FIRST_DELAY
            watched.restart_at = time.monotonic() + watched.delay
            watched.delay = min(watched.delay * 2, LAST_DELAY)

    def _restart_due(self, waiting: Waiting) -> None:
        now = time.monotonic()
        with self._lock:
            due = [name for name, w in self._watched.items() if w.restart_at is not None and w.restart_at <= now]
        for name in due:
            if waiting.ended:
                return
            try:
                self.watch(name, self._restart(name))
            except Exception as error:  # noqa: BLE001 - the other helpers still need this thread
                log.warning("Cannot start the helper of %s %s: %s", self._what, name, error)
                with self._lock:
                    if watched := self._watched.get(name):
                        watched.restart_at = time.monotonic() + watched.delay
                        watched.delay = min(watched.delay * 2, LAST_DELAY)


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
