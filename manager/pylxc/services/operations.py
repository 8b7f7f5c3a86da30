"""Operations: long work in a thread of its own, with progress, cancel, websockets and events.

LXD's three classes: a task runs a function; a websocket operation also takes connections, each named by a single-use
secret; a token runs nothing and lives until it is used or cancelled.
"""

from __future__ import annotations

import contextvars
import hmac
import logging
import secrets
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pylxc.errors import BadRequest, Cancelled, Forbidden, NotFound, PylxcError, Unavailable, from_os
from pylxc.services.events import EventBus
from pylxc.wire import operations as wire
from pylxc.wire.times import now

if TYPE_CHECKING:
    from aiohttp.web import WebSocketResponse

log = logging.getLogger(__name__)

KEPT_SECONDS = 5.0
"""How long a finished operation is shown, and can still be asked for by those who were told of its end."""

UNTOLD_SECONDS = 600.0
"""How long it can be asked for while nobody was told of its end: who has begun it may be slow, or suspended."""
UNTOLD_MOST = 1000
"""How many of those are kept, at most: there are clients that never ask."""

Connect = Callable[[str, "WebSocketResponse"], Awaitable[None]]
"""`await connect(socket_name, websocket)`: runs on the event loop; the websocket is closed when it returns."""


class Operation:
    """One operation; thread-safe. Made by `Operations.start` only.

    Attributes:
        id: a UUID.
        project: the project it belongs to, "" for none.
        passive: see `Operations.start`.
        finished_at: when its status became final, in seconds of a clock that only goes forward.
        is_told: whether somebody who asked for it was told of its end.
        cancelled: set when its user has asked for the end; long work calls `check_cancelled` now and then.
    """

    def __init__(  # noqa: PLR0913 - made in one place only
        self,
        description: str,
        *,
        project: str,
        resources: Mapping[str, Sequence[str]],
        class_: str,
        may_cancel: bool,
        passive: bool,
        metadata: Mapping[str, Any],
        sockets: Sequence[str],
        connect: Connect | None,
        for_strangers: bool,
        publish: Callable[[Operation], None],
    ) -> None:
        self.id = str(uuid.uuid4())
        self.description = description
        self.project = project
        self.class_ = class_
        self.cancelled = threading.Event()
        self.finished_at: float | None = None
        self.is_told = False
        self.may_cancel = may_cancel
        self.passive = passive
        self._resources = {kind: list(urls) for kind, urls in resources.items()}
        self._metadata = dict(metadata)
        self._created_at = self._updated_at = now()
        self._status = wire.RUNNING
        self._err = ""
        self._connect = connect
        self._sockets = {name: secrets.token_hex(32) for name in sockets}
        self._claimed: set[str] = set()
        self._waiters = [secrets.token_hex(32)] if for_strangers else []
        if sockets:
            self._metadata["fds"] = dict(self._sockets)
        if self._waiters:
            self._metadata["secret"] = self._waiters[0]
        self._publish = publish
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._on_done: list[Callable[[], None]] = []

    @property
    def status_code(self) -> int:
        """The wire's status code; final from 200 on."""
        return self._status

    @property
    def is_done(self) -> bool:
        """Whether the status is final."""
        return self._done.is_set()

    @property
    def is_over(self) -> bool:
        """Whether it has ended long enough ago to be shown no more."""
        return self.finished_at is not None and time.monotonic() - self.finished_at >= KEPT_SECONDS

    def update(self, **metadata: Any) -> None:
        """Merge JSON-ready values into the metadata and tell the listeners."""
        self.update_from(metadata)

    def update_from(self, metadata: Mapping[str, Any]) -> None:
        """Merge like `update`, for keys that are no Python names."""
        with self._lock:
            self._metadata.update(metadata)
            self._updated_at = now()
        self._publish(self)

    def progress(self, key: str, text: str, **detail: Any) -> None:
        """Tell how far it is.

        Args:
            key: ends in `_progress`: clients show the text of such a key (`download_progress`).
            text: for people: `rootfs: 45% (12.30MB/s)`.
            detail: numbers for programs (`percent`, `processed`, `total` in bytes, `speed` in bytes per second), put
                into the metadata as `progress`.
        """
        self.update_from(
            {key: text} | ({"progress": {"stage": key.removesuffix("_progress"), **detail}} if detail else {})
        )

    def check_cancelled(self) -> None:
        """Raise Cancelled once the user has asked for the end."""
        if self.cancelled.is_set():
            raise Cancelled("Operation was cancelled")

    def tell(self) -> dict[str, Any]:
        """Return the wire form for somebody who waits for the end; who has been told of that does not ask again."""
        self.is_told = self.is_told or self.is_done
        return self.to_json()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the status is final; return False when it is not after `timeout` seconds."""
        return self._done.wait(timeout)

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the status is final, from whatever thread ends it; at once when it is already."""
        with self._lock:
            if not self._done.is_set():
                self._on_done.append(callback)
                return
        callback()

    def forget_on_done(self, callback: Callable[[], None]) -> None:
        """Take back an `on_done`."""
        with self._lock:
            if callback in self._on_done:
                self._on_done.remove(callback)

    def claim(self, secret: str) -> str:
        """Return the name of the socket that `secret` opens, and use the secret up.

        Raises:
            BadRequest: the operation takes no connections, or is over.
            Forbidden: no such secret, or it was used before.
        """
        if self.class_ != "websocket" or self._connect is None:
            raise BadRequest("This operation has no websockets")
        if self._done.is_set():
            raise BadRequest("This operation is over")
        given = secret.encode(errors="replace")
        with self._lock:
            for name, right in self._sockets.items():
                if hmac.compare_digest(given, right.encode()):
                    if name in self._claimed:
                        raise Forbidden("This websocket is connected already")
                    self._claimed.add(name)
                    return name
        raise Forbidden("Invalid websocket secret")

    def allows(self, secret: str) -> bool:
        """Tell whether `secret` is one of this operation's, used or not: its holder may wait for the end."""
        rights = [*self._sockets.values(), *self._waiters]
        given = secret.encode(errors="replace")
        return any(hmac.compare_digest(given, right.encode()) for right in rights)

    async def connect(self, name: str, websocket: WebSocketResponse) -> None:
        """Hand a websocket that `claim` has named to whoever made the operation; return when it is used up."""
        if self._connect is not None:
            await self._connect(name, websocket)

    def to_json(self) -> dict[str, Any]:
        """Return the wire form, `wire.operations.Operation`."""
        with self._lock:
            resources = {kind: list(urls) for kind, urls in self._resources.items()}
            if "instances" in resources:  # LXD's older clients know them by this name only
                resources["containers"] = [
                    url.replace("/1.0/instances/", "/1.0/containers/", 1) for url in resources["instances"]
                ]
            return {
                "id": self.id,
                "class": self.class_,
                "description": self.description,
                "created_at": self._created_at,
                "updated_at": self._updated_at,
                "status": wire.STATUS_NAMES[self._status],
                "status_code": self._status,
                "resources": resources,
                "metadata": dict(self._metadata),
                "may_cancel": self.may_cancel and not self._done.is_set(),
                "err": self._err,
                "location": "none",
            }

    def _cancelling(self) -> None:
        self.cancelled.set()
        self._set_status(wire.CANCELLING)

    def _set_status(self, status: int) -> None:
        with self._lock:
            if self._status >= wire.SUCCESS:
                return
            self._status = status
            self._updated_at = now()
        self._publish(self)

    def _finish(self, status: int, err: str = "", metadata: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            if self._done.is_set():
                return
            self._metadata.update(metadata or {})
            self._status = status
            self._err = err
            self._updated_at = now()
            self.finished_at = time.monotonic()
            self._done.set()
            callbacks, self._on_done = self._on_done, []
        self._publish(self)
        for callback in callbacks:
            callback()


class Operations:
    """The operations of this server; thread-safe.

    Every task has a thread of its own, so that long work never holds up short work.
    """

    def __init__(self, events: EventBus) -> None:
        self._events = events
        self._operations: dict[str, Operation] = {}
        self._on_cancel: dict[str, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._closing = False

    def start(  # noqa: PLR0913 - all but two are by name and have defaults
        self,
        description: str,
        run: Callable[[Operation], dict[str, Any] | None] | None,
        *,
        project: str,
        resources: Mapping[str, Sequence[str]],
        class_: str = "task",
        on_cancel: Callable[[], None] | None = None,
        cancellable: bool = False,
        passive: bool = False,
        metadata: Mapping[str, Any] | None = None,
        sockets: Sequence[str] = (),
        connect: Connect | None = None,
        for_strangers: bool = False,
    ) -> Operation:
        """Start an operation and return it; it is running already.

        Args:
            description: for people: "Creating instance".
            run: does the work, in a thread, as the requestor of the caller; what it returns is merged into the
                metadata. A PylxcError makes the operation fail with its text. None (tokens): it runs until cancelled.
            project: "" for an operation of no project.
            resources: URLs by kind: {"instances": ["/1.0/instances/c1"]}.
            class_: task, websocket or token.
            on_cancel: called when the user cancels, from the canceller's thread; makes it cancellable.
            cancellable: `run` looks at `check_cancelled` and needs no `on_cancel`.
            passive: `run` changes nothing: the server does not wait for it when it stops.
            metadata: JSON-ready, there from the start.
            sockets: names of the websockets it takes ("0", "control"); their secrets go to metadata.fds.
            connect: gets each websocket, see `Connect`.
            for_strangers: whoever began it is not trusted; `secret` in its metadata lets them wait for its end.

        Raises:
            Unavailable: the server is stopping.
        """
        operation = Operation(
            description,
            project=project,
            resources=resources,
            class_=class_,
            may_cancel=cancellable or on_cancel is not None or class_ == "token",
            passive=passive,
            metadata=metadata or {},
            sockets=sockets,
            connect=connect,
            for_strangers=for_strangers,
            publish=self._publish,
        )
        with self._lock:
            if self._closing:
                raise Unavailable("The server is stopping")
            self._forget_old()
            self._operations[operation.id] = operation
            if on_cancel:
                self._on_cancel[operation.id] = on_cancel
        self._publish(operation)
        if run is not None:
            context = contextvars.copy_context()
            thread = threading.Thread(
                target=context.run, args=(self._run, operation, run), name=f"operation-{operation.id[:8]}", daemon=True
            )
            thread.start()
        return operation

    def get(self, operation_id: str) -> Operation:
        """Return an operation that runs, has just ended, or whose end nobody has been told of.

        Raises:
            NotFound: there is none of this id.
        """
        with self._lock:
            self._forget_old()
            operation = self._operations.get(operation_id)
        if operation is None:
            raise NotFound("Operation not found")
        return operation

    def all(self, project: str | None) -> list[Operation]:
        """Return the operations of a project and those of none, oldest first; None is every project."""
        with self._lock:
            self._forget_old()
            shown = [op for op in self._operations.values() if not op.is_over]
        return [op for op in shown if project is None or op.project in ("", project)]

    def cancel(self, operation_id: str) -> None:
        """Ask a running operation to end.

        Raises:
            NotFound: there is none of this id.
            BadRequest: it is over, or cannot be cancelled.
        """
        operation = self.get(operation_id)
        if operation.status_code != wire.RUNNING:
            raise BadRequest("Only running operations can be cancelled")
        if not operation.may_cancel:
            raise BadRequest("This operation can't be cancelled")
        on_cancel = self._on_cancel.get(operation_id)
        if operation.class_ == "token":
            operation.cancelled.set()
            self._finish(operation, wire.CANCELLED)
        else:
            operation._cancelling()
        if on_cancel:
            on_cancel()
        self._events.lifecycle("operation-cancelled", f"/1.0/operations/{operation_id}", project=operation.project)

    def close(self, timeout: float) -> int:
        """Take no new operations, and wait for the running tasks; return how many still run.

        Websocket operations are not waited for: what runs in a container outlives the daemon.

        Args:
            timeout: seconds.
        """
        with self._lock:
            self._closing = True
            running = [op for op in self._operations.values() if op.class_ == "task" and not op.passive]
        deadline = time.monotonic() + timeout
        return sum(not operation.wait(max(0.0, deadline - time.monotonic())) for operation in running)

    def _run(self, operation: Operation, run: Callable[[Operation], dict[str, Any] | None]) -> None:
        try:
            metadata = run(operation)
        except PylxcError as error:
            status = wire.CANCELLED if operation.cancelled.is_set() else wire.FAILURE
            self._finish(operation, status, str(error))
        except OSError as error:
            log.exception("Operation %s (%s) failed", operation.id, operation.description)
            self._finish(operation, wire.FAILURE, str(from_os(error)))
        except Exception as error:
            log.exception("Operation %s (%s) failed", operation.id, operation.description)
            self._finish(operation, wire.FAILURE, f"Internal error: {type(error).__name__}")
        else:
            self._finish(operation, wire.SUCCESS, metadata=metadata)

    def _finish(
        self, operation: Operation, status: int, err: str = "", metadata: Mapping[str, Any] | None = None
    ) -> None:
        self._on_cancel.pop(operation.id, None)
        operation._finish(status, err, metadata)

    def _publish(self, operation: Operation) -> None:
        if self._events.wants("operation"):
            self._events.operation(operation.to_json(), operation.project)

    def _forget_old(self) -> None:
        limit = time.monotonic() - UNTOLD_SECONDS
        over = [(key, op) for key, op in self._operations.items() if op.is_over]
        untold = [key for key, op in over if not op.is_told and (op.finished_at or 0.0) > limit]
        for key in {key for key, _ in over}.difference(untold[-UNTOLD_MOST:]):
            del self._operations[key]
