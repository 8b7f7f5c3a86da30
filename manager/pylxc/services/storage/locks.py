"""Locks by name: many may share one, or one holds it alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class NamedLocks:
    """Shared and exclusive locks that exist while they are held; thread-safe, not re-entrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, int] = {}  # holders of a shared lock; -1: held alone

    @contextmanager
    def shared(self, name: str, wait: float | None = None) -> Iterator[None]:
        """Hold `name` together with others who share it; raises TimeoutError after `wait` seconds, None is for ever."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._held.get(name, 0) >= 0, wait):
                raise TimeoutError(name)
            self._held[name] = self._held.get(name, 0) + 1
        try:
            yield
        finally:
            self._release(name)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold `name` alone."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._held)
            self._held[name] = -1
        try:
            yield
        finally:
            self._release(name)

    @contextmanager
    def attempt(self, name: str) -> Iterator[bool]:
        """Hold `name` alone if nobody holds it; gives whether."""
        with self._changed:
            is_free = name not in self._held
            if is_free:
                self._held[name] = -1
        try:
            yield is_free
        finally:
            if is_free:
                self._release(name)

    def _release(self, name: str) -> None:
        with self._changed:
            left = max(self._held[name], 1) - 1
            if left:
                self._held[name] = left
            else:
                del self._held[name]
            self._changed.notify_all()
