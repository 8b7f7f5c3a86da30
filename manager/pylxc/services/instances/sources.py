"""Notices that sources of devices come and go, which running instances do without while they are not there."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Iterator

from pylxc.errors import Conflict
from pylxc.kernel.inotify import OVERFLOW, Inotify
from pylxc.kernel.waiting import Waiting

log = logging.getLogger(__name__)

_QUIET_SECONDS = 0.1
"""How long nothing has to happen before it is looked at what has: what is made in several steps is seen whole."""
_MOST_SECONDS = 2.0
"""How long that is waited for: a host may mount and unmount without a pause."""
_BUSY_SECONDS = 1.0
"""After which an instance is looked at again that was busy."""


class SourceWatch:
    """A thread that waits for names in directories and for mounts; there is none while nothing is to be watched.

    Args:
        look: brings the devices of an instance, by key, in line with what is there. What it raises is logged, after a
            Conflict it is called again.
    """

    def __init__(self, look: Callable[[str], None]) -> None:
        self._look = look
        self._guard = threading.Lock()
        self._paths: dict[str, frozenset[str]] = {}
        self._fresh: set[str] = set()
        self._waiting: Waiting | None = None
        self._closing = False
        # The thread's own:
        self._watched: dict[int, dict[str, set[str]]] = {}

    def watch(self, key: str, paths: Collection[str]) -> None:
        """Watch these paths for an instance, in place of those before, and look at it once that is done."""
        with self._guard:
            if frozenset(paths) == self._paths.get(key, frozenset()) or self._closing:
                return
            self._paths.pop(key, None)
            if paths:
                self._paths[key] = frozenset(paths)
                self._fresh.add(key)
            try:
                self._waiting = self._waiting or self._begin()
            except OSError as error:
                log.error("Sources of devices that come and go are not noticed: %s", error)
                return
            self._waiting.wake()

    def close(self) -> None:
        """End the thread."""
        with self._guard:
            self._closing = True
            waiting = self._waiting
        if waiting is not None:
            waiting.close()

    def _begin(self) -> Waiting:
        """Start the thread."""
        inotify = Inotify()
        # Readable, in poll's own way, when the daemon's mounts change. See: proc(5)
        mounts = open("/proc/self/mountinfo", "rb")  # noqa: SIM115 - the thread closes it

        def run(waiting: Waiting) -> None:
            try:
                self._serve(waiting, inotify, mounts.fileno())
            except Exception:
                log.exception("Sources of devices that come and go are not noticed any more")
            finally:
                inotify.close()
                mounts.close()

        fds = {inotify.fileno(): select.POLLIN, mounts.fileno(): select.POLLPRI}
        return Waiting("device-sources", run, fds)

    def _serve(self, waiting: Waiting, inotify: Inotify, mounts_fd: int) -> None:
        concerned: set[str] = set()
        wait: float | None = None
        patience = 0.0
        while (ready := waiting.wait(wait)) is not None:
            happened = self._happened(inotify, everything=mounts_fd in ready)
            if happened:
                concerned |= happened
                patience = patience or time.monotonic() + _MOST_SECONDS
                wait = _QUIET_SECONDS
                if time.monotonic() < patience:
                    continue
            patience = 0.0
            self._arm(inotify)
            with self._guard:
                concerned |= self._fresh
                self._fresh = set()
            concerned = self._settle(concerned)
            wait = _BUSY_SECONDS if concerned else None

    def _happened(self, inotify: Inotify, *, everything: bool) -> set[str]:
        """Return the instances that events may concern."""
        events = inotify.read()
        if everything or any(number == OVERFLOW for number, _ in events):
            with self._guard:
                return set(self._paths)
        return {key for number, name in events for key in self._watched.get(number, {}).get(name, ())}

    def _arm(self, inotify: Inotify) -> None:
        """Watch every directory on the way to every path, from the top down to the first that is not there."""
        with self._guard:
            wanted = [(path, key) for key, paths in self._paths.items() for path in paths]
        watched: dict[int, dict[str, set[str]]] = {}
        for path, key in wanted:
            for directory, name in _steps(path):
                try:
                    number = inotify.add(directory)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as error:
                    log.warning("Not noticed when %s comes or goes: %s", path, error.strerror)
                    break
                watched.setdefault(number, {}).setdefault(name, set()).add(key)
        for number in self._watched.keys() - watched.keys():
            inotify.remove(number)
        self._watched = watched

    def _settle(self, keys: set[str]) -> set[str]:
        """Look at instances; return those that are to be looked at again."""
        busy = set()
        for key in sorted(keys):
            try:
                self._look(key)
            except Conflict:
                busy.add(key)
            except Exception as error:  # noqa: BLE001 - the next change is looked at all the same
                log.warning("Failed bringing the devices of instance %s in line: %s", key, error)
        return busy


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Yield the directories on the way to a path and what it is called there; links are followed where they lead."""
    for way in dict.fromkeys((os.path.normpath(path), os.path.realpath(path))):
        names = way.strip("/").split("/")
        for index, name in enumerate(names):
            yield "/" + "/".join(names[:index]), name
