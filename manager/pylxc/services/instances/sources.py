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
        self._thread: threading.Thread | None = None
        self._wake = -1
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
            if self._thread is None:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._thread = threading.Thread(target=self._run, name="device-sources", daemon=True)
                self._thread.start()
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the thread."""
        with self._guard:
            self._closing = True
            thread = self._thread
        if thread is not None:
            os.eventfd_write(self._wake, 1)
            thread.join()
            os.close(self._wake)

    def _run(self) -> None:
        inotify = Inotify()
        try:
            # Readable, in poll's own way, when the daemon's mounts change. See: proc(5)
            with open("/proc/self/mountinfo", "rb") as mounts:
                self._serve(inotify, mounts.fileno())
        except Exception:
            log.exception("Sources of devices that come and go are not noticed any more")
        finally:
            inotify.close()

    def _serve(self, inotify: Inotify, mounts_fd: int) -> None:
        poll = select.poll()
        for fd in (inotify.fileno(), self._wake):
            poll.register(fd, select.POLLIN)
        poll.register(mounts_fd, select.POLLPRI)
        concerned: set[str] = set()
        wait: float | None = None
        patience = 0.0
        while not self._closing:
            ready = {fd for fd, _ in poll.poll(None if wait is None else wait * 1000)}
            if self._wake in ready:
                os.eventfd_read(self._wake)
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
