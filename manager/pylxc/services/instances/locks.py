"""One operation per instance at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from pylxc.errors import Conflict


class InstanceLocks:
    """Who is busy with which instance, by instance key; thread-safe.

    A second operation is refused at once instead of waiting: its user sees what is going on.
    """

    def __init__(self) -> None:
        self._held: dict[str, str] = {}
        self._sharers: dict[str, int] = {}
        self._changed = threading.Condition()

    @contextmanager
    def hold(
        self, key: str, action: str, *, wait: float = 0.0, joins: tuple[str, ...] = (), shared: bool = False
    ) -> Iterator[None]:
        """Hold an instance while the block runs.

        Args:
            key: the instance's key on disk.
            action: what is done, for the complaint of others: "start".
            wait: seconds to wait for whoever holds it.
            joins: actions of another holder that this one may go on beside, holding nothing (a forced stop beside a
                clean stop that hangs).
            shared: several may do the same at once, such as copying it, and nobody anything else meanwhile.

        Raises:
            Conflict: another operation holds it.
        """
        with self._changed:
            owned = self._held.get(key) not in joins
            if owned:
                beside = (None, action) if shared else (None,)
                self._changed.wait_for(lambda: self._held.get(key) in beside, wait)
                if self._held.get(key) not in beside:
                    raise Conflict(f'Instance is busy running a "{self._held[key]}" operation')
                self._held[key] = action
                self._sharers[key] = self._sharers.get(key, 0) + 1
        try:
            yield
        finally:
            if owned:
                with self._changed:
                    self._sharers[key] -= 1
                    if not self._sharers[key]:
                        del self._held[key], self._sharers[key]
                    self._changed.notify_all()

    @contextmanager
    def hold_all(self, keys: Iterable[str], action: str, *, wait: float = 0.0) -> Iterator[None]:
        """Hold several instances while the block runs, in one order; see `hold`."""
        with ExitStack() as stack:
            for key in sorted(keys):
                stack.enter_context(self.hold(key, action, wait=wait))
            yield

    def holder(self, key: str) -> str | None:
        """Return what is being done to an instance, None when nothing."""
        with self._changed:
            return self._held.get(key)
