"""Waiting for what nothing announces: a guest's own state, a host's housekeeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], what: str, timeout: float = 30) -> T:
    """Return what `look` returns as soon as it is true.

    Raises:
        AssertionError: it stays false; `what` says what was waited for.
    """
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.05)
    return found
