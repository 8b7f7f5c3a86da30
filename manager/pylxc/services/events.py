"""Events: what happens on the server, for those who listen at /1.0/events."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from pylxc.wire.times import now

TYPES = frozenset({"lifecycle", "logging", "operation"})

requestor: ContextVar[dict[str, str] | None] = ContextVar("requestor", default=None)
"""Who asked for what is being done: {username, protocol, address}. Set per request, copied into operation threads."""


Waker = Callable[["Subscription"], None]
"""Called from the publisher's thread after an event was queued or the listener was dropped."""


class Subscription:
    """A listener's bounded queue of events as JSON text; thread-safe.

    Args:
        types: of the events wanted, out of `TYPES`.
        project: events of this project and of none; None is all projects.
        wake: see `Waker`.
        limit: a listener that has this many events waiting is dropped: it must never hold up or fill the server.
        only_project: no events of no project.
        size: as `limit`, in characters of the events together; one event may always wait.
    """

    def __init__(
        self,
        types: frozenset[str],
        project: str | None,
        wake: Waker | None = None,
        limit: int = 4096,
        *,
        only_project: bool = False,
        size: int = 8 << 20,
    ) -> None:
        self.types = types
        self.project = project
        self.only_project = only_project
        self.overrun = False
        self._wake = wake
        self._limit = limit
        self._room = self._size = size
        self._queue: deque[str] = deque()
        self._changed = threading.Condition()

    def wants(self, kind: str, project: str) -> bool:
        """Tell whether an event of this type and project ("" is none) is for this listener."""
        if not project:
            return kind in self.types and not self.only_project
        return kind in self.types and self.project in (None, project)

    def put(self, text: str) -> None:
        """Queue an event, or mark the listener as overrun when it does not keep up."""
        with self._changed:
            if self._queue and (len(self._queue) >= self._limit or len(text) > self._room):
                self.overrun = True
            else:
                self._queue.append(text)
                self._room -= len(text)
            self._changed.notify_all()
        if self._wake:
            self._wake(self)

    def take(self) -> list[str]:
        """Return what waits, oldest first; does not block."""
        with self._changed:
            texts = list(self._queue)
            self._queue.clear()
            self._room = self._size
            return texts

    def get(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next event, None when none comes within `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._queue), timeout):
                return None
            text = self._queue.popleft()
            self._room += len(text)
        event: dict[str, Any] = json.loads(text)
        return event


class EventBus:
    """Hands events to every listener; thread-safe, never blocks."""

    def __init__(self) -> None:
        self._listeners: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()

    def subscribe(
        self,
        types: set[str] | frozenset[str],
        project: str | None,
        wake: Waker | None = None,
        *,
        only_project: bool = False,
    ) -> Subscription:
        """Return a new listener; see `Subscription`. End it with `unsubscribe`."""
        listener = Subscription(frozenset(types), project, wake, only_project=only_project)
        with self._lock:
            self._listeners = (*self._listeners, listener)
        return listener

    def unsubscribe(self, listener: Subscription) -> None:
        """Stop handing events to `listener`."""
        with self._lock:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

    def lifecycle(self, action: str, source: str, *, project: str, context: Mapping[str, object] | None = None) -> None:
        """Publish that something was done.

        Args:
            action: LXD's name: `instance-started`.
            source: the object's URL: `/1.0/instances/c1`; `?project=` is added here for a project that is not default.
            project: the object's project, "" for an object of none.
            context: facts that go with it.
        """
        if project not in ("", "default") and "?" not in source:
            source = f"{source}?project={project}"
        metadata: dict[str, object] = {"action": action, "source": source}
        if context:
            metadata["context"] = dict(context)
        if who := requestor.get():
            metadata["requestor"] = who
        self._publish("lifecycle", metadata, project)

    def operation(self, operation: Mapping[str, Any], project: str) -> None:
        """Publish an operation's state; `operation` is its wire form."""
        self._publish("operation", operation, project)

    def logging(self, message: str, level: str, context: Mapping[str, str]) -> None:
        """Publish a line of the server's log; `level` is debug, info, warning or error."""
        self._publish("logging", {"message": message, "level": level, "context": dict(context)}, "")

    def wants(self, kind: str) -> bool:
        """Tell whether anybody listens to events of this type."""
        return any(kind in listener.types for listener in self._listeners)

    def _publish(self, kind: str, metadata: Mapping[str, Any], project: str) -> None:
        listeners = [listener for listener in self._listeners if listener.wants(kind, project)]
        if not listeners:
            return
        event = {"type": kind, "timestamp": now(), "metadata": metadata, "location": "none"}
        if project:
            event["project"] = project
        text = json.dumps(event)
        for listener in listeners:
            listener.put(text)


class LogEvents(logging.Handler):
    """Sends log records to the listeners as logging events."""

    def __init__(self, events: EventBus) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Publish one record."""
        if self._events.wants("logging"):
            level = "error" if record.levelname == "CRITICAL" else record.levelname.lower()
            self._events.logging(record.getMessage(), level, {"logger": record.name})
