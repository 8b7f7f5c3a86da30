"""Waiting until an instance is ready for what is wanted of it."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Mapping
from typing import Any

from pylxc.db import networks
from pylxc.db.engine import Database
from pylxc.errors import BadRequest, NotFound
from pylxc.paths import Paths
from pylxc.runtime.handle import Runtime
from pylxc.services.events import EventBus
from pylxc.services.instances import readiness
from pylxc.services.instances.expand import Record, load, url
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.readiness import Probe
from pylxc.services.operations import Operation, Operations
from pylxc.wire.instances import InstanceWaitPost

SECONDS = 60
"""How long is waited when nothing is said."""

_STATES = {"running": "Running", "stopped": "Stopped"}
_STARTING = ("start", "restart")


class Wait:
    """Waits; thread-safe."""

    def __init__(
        self,
        *,
        db: Database,
        paths: Paths,
        runtime: Runtime,
        lifecycle: Lifecycle,
        operations: Operations,
        events: EventBus,
        locks: InstanceLocks,
    ) -> None:
        self._db = db
        self._paths = paths
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._operations = operations
        self._events = events
        self._locks = locks

    def start(self, project: str, name: str, body: InstanceWaitPost) -> Operation:
        """Begin to wait; the operation succeeds once it is so, with facts in its metadata.

        It fails when the time is up (`timed_out` in the metadata), or when the instance does not run and is not
        being started.

        Raises:
            NotFound: there is no such instance.
            BadRequest: there is no such condition.
        """
        condition, timeout = body.get("condition", ""), body.get("timeout", SECONDS)
        if condition not in _STATES:
            readiness.check(condition)
        with self._db.reading() as session:
            found = load(session, project, name)
            families = _families(found, {row.name: row.config for row in networks.everything(session)})
        waker = _Waker()

        def run(operation: Operation) -> dict[str, Any]:
            listener = self._events.subscribe({"lifecycle"}, project, lambda _: waker.wake())
            try:
                turn = _Turn(operation, waker, found.name, timeout)
                if condition in _STATES:
                    return self._await_state(found, _STATES[condition], turn)
                return self._await_probe(found, condition, families, turn)
            finally:
                self._events.unsubscribe(listener)
                waker.close()

        return self._operations.start(
            "Waiting for instance",
            run,
            project=project,
            resources={"instances": [url(project, name)]},
            on_cancel=waker.wake,
            passive=True,
            metadata={"condition": condition},
        )

    def _await_state(self, found: Record, wanted: str, turn: _Turn) -> dict[str, Any]:
        while True:
            self._refuse_deleted(found, wanted)
            status = self._lifecycle.status(found.key)
            if status == wanted and not (wanted == "Stopped" and self._locks.holder(found.key) in _STARTING):
                return {}
            turn.wait(f"is {status.lower()}")

    def _refuse_deleted(self, found: Record, wanted: str) -> None:
        with self._db.reading() as session:
            try:
                load(session, found.project, found.name)
            except NotFound:
                if wanted != "Stopped":
                    raise

    def _await_probe(self, found: Record, condition: str, families: set[str], turn: _Turn) -> dict[str, Any]:
        probe: Probe | None = None
        pid = 0
        try:
            while True:
                running = self._runtime.get(found.key)
                if running is None:
                    self._refuse_stopped(found)
                    turn.wait("is not running")
                    continue
                if probe is None or pid != running.pid:
                    if probe is not None:
                        probe.close()
                    pid = running.pid
                    try:
                        probe = readiness.probe(condition, families, self._runtime, self._paths, found.key, pid)
                    except OSError:  # it ends just now
                        turn.wait("is not running")
                        continue
                facts = probe.look()
                if facts is not None:
                    return facts
                turn.wait(probe.missing, probe.fileno(), probe.pause)
        finally:
            if probe is not None:
                probe.close()

    def _refuse_stopped(self, found: Record) -> None:
        """Return when the instance is being started; one that has ended may be about to start again."""
        self._lifecycle.settle(found.key)
        if self._runtime.get(found.key) is None and self._locks.holder(found.key) not in _STARTING:
            raise BadRequest(f"Instance {found.name} is not running")


class _Waker:
    """Wakes a thread that polls `fd`; may be called by anybody, also when it is too late."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def wake(self) -> None:
        with self._lock:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self._lock:
            os.close(self.fd)
            self.fd = -1


_MOST_SECONDS = 3600.0
"""Between two looks: poll(2) takes no more than 24 days."""


class _Turn:
    """The time between two looks."""

    def __init__(self, operation: Operation, waker: _Waker, name: str, timeout: int) -> None:
        self._operation = operation
        self._waker = waker
        self._name = name
        self._timeout = timeout
        self._deadline = None if timeout < 0 else time.monotonic() + timeout

    def wait(self, missing: str, fd: int = -1, pause: float | None = None) -> None:
        """Return when it is worth to look again.

        Args:
            missing: what is not so yet, for the complaint.
            fd: readable then; -1 for none.
            pause: seconds, None for any time.

        Raises:
            BadRequest: the time is up.
            Cancelled: the user has cancelled.
        """
        self._operation.check_cancelled()
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            self._operation.update(timed_out=True)
            raise BadRequest(f"Instance {self._name} {missing} after {self._timeout} s")
        poll = select.poll()
        for each in (self._waker.fd, fd):
            if each >= 0:
                poll.register(each, select.POLLIN)
        poll.poll(min(seconds for seconds in (left, pause, _MOST_SECONDS) if seconds is not None) * 1000 + 1)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._waker.fd)
        self._operation.check_cancelled()


def _families(found: Record, configs: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return the families of which the managed networks of an instance's NICs have addresses."""
    used = {device.get("network", "") for device in found.expanded_devices.values() if device.get("type") == "nic"}
    names = {"ipv4": "inet", "ipv6": "inet6"}
    return {
        names[family]
        for network in used & configs.keys()
        for family in names
        if configs[network].get(f"{family}.address", "none") != "none"
    }
