"""Waits for an operation and shows how far it is."""

from __future__ import annotations

import sys
import time

from pylxc.errors import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pylxc.cli.session import Session
    from pylxc.client.operations import Operation

QUICK_SECONDS = 1.0


def begin(start: Callable[[], Operation]) -> Operation:
    """Begin an operation and return it; Ctrl-C meanwhile cancels it once it is there, the second one counts at once.

    Args:
        start: asks the server for it, and may take its time.
    """
    import signal

    hits: list[int] = []

    def note(number: int, _: object) -> None:
        if hits:
            raise KeyboardInterrupt
        hits.append(number)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, by who started this
        return start()
    signal.signal(signal.SIGINT, note)
    try:
        operation = start()
    finally:
        signal.signal(signal.SIGINT, before)
    if hits:
        operation.cancel()
    return operation


def wait(session: Session, operation: Operation, label: str) -> Operation:
    """Wait for `operation`; nothing is shown of one that is done within a second.

    Ctrl-C cancels the operation; where it cannot be cancelled, the second Ctrl-C leaves it running.
    """
    view = None if session.quiet else _View(session, operation, label)
    interrupted = False
    while True:
        try:
            operation.wait(view.tick if view else None)
            break
        except KeyboardInterrupt:
            session.client.close()  # it has an answer under way that nobody waits for any more
            if interrupted:
                raise
            interrupted = True
            if not operation.cancel():
                print("This cannot be cancelled; press Ctrl-C again to leave it running", file=sys.stderr)
        except Cancelled:
            if interrupted:
                raise Cancelled("Remote operation canceled by user") from None
            raise
        finally:
            if view:
                view.pause()
    return operation


class _View:
    """Asks for the progress once the operation has proved to be slow, and draws it."""

    def __init__(self, session: Session, operation: Operation, label: str) -> None:
        self._session = session
        self._operation = operation
        self._label = label
        self._since = time.monotonic()
        self._display: object | None = None

    def tick(self) -> None:
        if time.monotonic() - self._since < QUICK_SECONDS:
            return
        if self._display is None:
            from pylxc.cli.progress_view import Display

            self._display = Display(self._session.client, self._operation, self._label)
        self._display.draw()  # type: ignore[attr-defined]

    def pause(self) -> None:
        if self._display is not None:
            self._display.close()  # type: ignore[attr-defined]
            self._display = None
