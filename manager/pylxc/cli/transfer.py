"""Progress of bytes that this command itself moves."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.progress_view import Bar
    from pylxc.cli.session import Session

QUICK_SECONDS = 0.3
_REDRAW_SECONDS = 0.1


class Transfer:
    """Counts bytes in a `with` block, and draws a bar once it has taken 300 ms.

    Args:
        session: says whether progress is wanted.
        label: what is being moved.
        total: bytes in all, 0 when that is not known.
    """

    def __init__(self, session: Session, label: str, total: int) -> None:
        self._quiet = session.quiet
        self._label = label
        self._total = total
        self._moved = 0
        self._next = time.monotonic() + QUICK_SECONDS
        self._bar: Bar | None = None

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int) -> None:
        """Note that `count` bytes have moved."""
        self._moved += count
        if self._quiet or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REDRAW_SECONDS
        if self._bar is None:
            from pylxc.cli.progress_view import Bar

            self._bar = Bar(self._label)
        self._bar.show(self._moved, self._total)
