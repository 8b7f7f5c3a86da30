"""What tells of processes that the kernel kills because a control group has no memory left, without asking for it.

See: the kernel's admin-guide/cgroup-v2.rst (memory.events) and admin-guide/cgroup-v1/memory.rst (memory.oom_control).
"""

from __future__ import annotations

import os
import select
from abc import ABC, abstractmethod


class OomWatch(ABC):
    """To be polled for `events` at `fileno`."""

    events = 0

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor."""

    @abstractmethod
    def take(self) -> int:
        """Return how many processes were killed since the last call; it ends what made the descriptor ready."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""


class FileOomWatch(OomWatch):
    """A group of cgroup v2: its memory.events, which can be polled."""

    events = select.EPOLLPRI

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._seen = self._read()

    def fileno(self) -> int:
        """See `OomWatch`."""
        return self._file

    def take(self) -> int:
        """See `OomWatch`; 0 when the group has gone."""
        try:
            now = self._read()
        except OSError:
            return 0
        killed, self._seen = now - self._seen, now
        return killed

    def close(self) -> None:
        """See `OomWatch`."""
        os.close(self._file)

    def _read(self) -> int:
        return count(os.pread(self._file, 4096, 0).decode())


class EventOomWatch(OomWatch):
    """A group of the v1 controller: an eventfd, which tells before the process is dead and counted."""

    events = select.EPOLLIN

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            subject = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                with open(f"{directory}/cgroup.event_control", "w") as file:
                    file.write(f"{self._event} {subject}")
            finally:
                os.close(subject)
        except OSError:
            os.close(self._event)
            raise

    def fileno(self) -> int:
        """See `OomWatch`."""
        return self._event

    def take(self) -> int:
        """See `OomWatch`; 0 when the group has gone, which makes the descriptor ready as well."""
        try:
            killed = os.eventfd_read(self._event)
        except BlockingIOError:
            return 0
        return killed if os.path.isdir(self._directory) else 0

    def close(self) -> None:
        """See `OomWatch`."""
        os.close(self._event)


def count(text: str) -> int:
    """Return the number of `oom_kill` in the text of memory.events or memory.oom_control, 0 where there is none."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0
