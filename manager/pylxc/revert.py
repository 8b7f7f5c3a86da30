"""The undo stack of a change that takes several steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class Reverter:
    """Run the undo steps in reverse order unless `success()` was called.

    A failing undo step is logged and never hides the error that caused the undo.

    Example:
        with Reverter() as revert:
            make()
            revert.add(unmake)
            ...
            revert.success()
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def add(self, undo: Callable[..., object], *args: object) -> None:
        """Push an undo step: `undo(*args)` runs if the block does not succeed."""
        self._steps.append((undo, args))

    def success(self) -> None:
        """Keep the change: forget all undo steps."""
        self._steps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._steps:
            undo, args = self._steps.pop()
            try:
                undo(*args)
            except Exception:  # the cause must survive, whatever an undo step does
                log.exception("Failed undoing %s", getattr(undo, "__qualname__", undo))
