"""What progress looks like: a bar on a terminal, a line now and then elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import threading
import time

from pylxc.cli.output import plain
from pylxc.client import codec
from pylxc.client.events import Events
from pylxc.errors import PylxcError
from pylxc.units import format_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.client.client import Client
    from pylxc.client.operations import Operation

_LINE_SECONDS = 5.0


class Bar:
    """A labelled bar with bytes, rate and time left; or a text beside a spinner while there are no numbers."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._rich: Any = None
        self._next_line = 0.0
        self._last_line = ""
        self._shown = ("", -1)
        if sys.stderr.isatty():
            self._rich = self._start_rich()

    def _start_rich(self) -> Any:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._columns = columns
        progress = Progress(*columns[:2], console=Console(stderr=True), transient=True)
        progress.start()
        self._task = progress.add_task(self._label, total=None)
        return progress

    def show(self, moved: int, total: int, part: str = "") -> None:
        """Show that `moved` bytes of `total` (0: not known) have gone; `part` is what of the whole they belong to."""
        label = f"{self._label}: {plain(part)}" if part else self._label
        if self._rich is not None:
            self._rich.columns = self._columns
            if (part, total) != self._shown:
                self._shown = (part, total)
                # Rate and time left are the part's.
                self._rich.reset(self._task, description=label, total=total or None)
            self._rich.update(self._task, completed=moved)
            return
        if (part, total) != self._shown:
            self._shown, self._next_line = (part, total), 0.0
        share = f" ({100 * moved // total}%)" if total else ""
        self._line(f"{label}: {format_bytes(moved)}{share}")

    def text(self, text: str) -> None:
        """Show a text of the server's."""
        shown = f"{self._label}: {plain(text)}" if text else self._label
        if self._rich is not None:
            self._rich.columns = self._columns[:2]
            self._rich.update(self._task, description=shown)
            self._shown = ("", -1)
        elif text:
            self._line(shown)

    def _line(self, line: str) -> None:
        now = time.monotonic()
        if line != self._last_line and now >= self._next_line:
            print(line, file=sys.stderr, flush=True)
            self._last_line, self._next_line = line, now + _LINE_SECONDS

    def close(self) -> None:
        """Take the bar away."""
        if self._rich is not None:
            self._rich.stop()


class Display:
    """Follows an operation by the server's events and shows its progress."""

    def __init__(self, client: Client, operation: Operation, label: str) -> None:
        self._bar = Bar(label or str(operation.data.get("description", "")))
        self._id = operation.id
        self._metadata: dict[str, Any] = operation.metadata
        self._told: dict[str, str] = {}
        self._stage = ""
        self._events: Events | None = None
        try:
            self._events = Events(client, ("operation",))
            self._metadata = self._read(client, operation)  # what came before there was anybody to hear it
        except PylxcError:
            return  # a server that is just going down; the wait itself will tell
        threading.Thread(target=self._follow, daemon=True).start()

    @staticmethod
    def _read(client: Client, operation: Operation) -> dict[str, Any]:
        """Return the operation's metadata now; the client's own connection waits for the operation's end."""
        connection = client.connect()
        try:
            answer = codec.loads(connection.request("GET", operation.path).read().decode())
            return dict((answer.get("metadata") or {}).get("metadata") or {})
        finally:
            connection.close()

    def _follow(self) -> None:
        assert self._events is not None
        for event in self._events:
            if event["metadata"].get("id") == self._id:
                self._metadata = event["metadata"].get("metadata") or {}

    def draw(self) -> None:
        """Show what is known now: the last that the server has told, as a bar where there are numbers to it."""
        metadata = self._metadata
        for key, value in metadata.items():
            if key.endswith("_progress") and isinstance(value, str) and value != self._told.get(key):
                self._told[key] = value
                self._stage = key
        text = self._told.get(self._stage, "")
        numbers = metadata.get("progress")
        if isinstance(numbers, dict) and f"{numbers.get('stage')}_progress" == self._stage:
            total, processed = str(numbers.get("total", "")), str(numbers.get("processed", ""))
            if total.isdecimal() and processed.isdecimal() and int(total):
                part, colon, _ = text.partition(":")
                self._bar.show(int(processed), int(total), part if colon else "")
                return
        self._bar.text(text)

    def close(self) -> None:
        """Stop following and take the display away."""
        if self._events is not None:
            self._events.close()
        self._bar.close()
