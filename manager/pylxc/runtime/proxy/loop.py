"""The event loop of a proxy: descriptors, timers, and work that was put off so that others get their turn."""

from __future__ import annotations

import heapq
import os
import select
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_EVENTS = 256
_LOG_SECONDS = 10.0


class Loop:
    """One epoll; handlers are called with the events, callbacks with nothing."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._fresh: set[int] = set()
        self._later: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._ended = False

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler` on events of `fd` until `forget`."""
        self._handlers[fd] = handler
        self._fresh.add(fd)
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch for other events from now on."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """End `watch`, if there was one; call it before `fd` is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def again(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the events that wait have had their turn."""
        self._later.append(callback)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` in so many seconds."""
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, callback))

    def end(self) -> None:
        """Have `run` return."""
        self._ended = True

    def run(self) -> None:
        """Serve until `end`."""
        handlers, later, fresh = self._handlers, self._later, self._fresh
        while not self._ended:
            found = self._epoll.poll(self._patience(), _EVENTS)
            fresh.clear()
            for fd, events in found:
                # The handler of an earlier event may have closed it, and another may have its number by now.
                handler = handlers.get(fd)
                if handler is not None and fd not in fresh:
                    handler(events)
            for _ in range(len(later)):
                later.popleft()()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _patience(self) -> float | None:
        if self._later:
            return 0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None


class Log:
    """The device's log: a line when something begins to fail, and a line when it works again.

    What fails is up to whoever connects, so the lines are few.
    """

    def __init__(self) -> None:
        # From now on the C library knows the time zone: it must not look for it where the file system is the guest's.
        time.gmtime()
        self._failing = ""
        self._next = 0.0

    def failed(self, what: str, error: OSError) -> None:
        """Note that `what` fails."""
        text = f"Failed {what}: {error.strerror}"
        if text != self._failing and time.monotonic() >= self._next:
            self._failing = text
            self._next = time.monotonic() + _LOG_SECONDS
            self._write(text)

    def worked(self) -> None:
        """Note that it works."""
        if self._failing:
            self._failing = ""
            self._write("Connecting works again")

    def _write(self, text: str) -> None:
        stamp = "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z".format(*time.gmtime()[:6])
        os.write(2, f"{stamp} {text}\n".encode())
