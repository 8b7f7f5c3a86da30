"""A thread that waits for descriptors. See: poll(2), eventfd(2)."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterable, Mapping


class Waiting:
    """A thread that waits for descriptors until it is closed; costs nothing while none is ready.

    Args:
        name: the thread's.
        run: what the thread does; it gets this object and returns when `wait` has returned None.
        fds: what is waited for, with the events of poll(2) that make each ready. They stay their owner's.
    """

    def __init__(self, name: str, run: Callable[[Waiting], None], fds: Mapping[int, int]) -> None:
        self._fds = fds
        self._ended = False
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=run, args=(self,), name=name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None, more: Iterable[int] = ()) -> set[int] | None:
        """Return the descriptors that are ready: none after `seconds` or a `wake`. None when the thread is to end.

        Args:
            seconds: the longest time to wait, None for ever.
            more: to be waited for as well, this time: ready when they are readable.
        """
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for fd, events in (*self._fds.items(), *((fd, select.POLLIN) for fd in more)):
            poll.register(fd, events)
        ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return None if self._ended else ready - {self._wake}

    @property
    def ended(self) -> bool:
        """Whether the thread is to end."""
        return self._ended

    def wake(self) -> None:
        """Have `wait` return, if the thread is there still."""
        with self._lock:  # once it is closed the number may be somebody else's
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Have the thread end, and wait until it has."""
        self._ended = True
        self.wake()
        self._thread.join()
        with self._lock:
            os.close(self._wake)
            self._wake = -1
