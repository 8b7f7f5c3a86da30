"""A daemon's clock that its test sets: the real daemon, started with a clock of ours for scheduled work."""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path

from tests.support.daemon import ROOT, Daemon

_VARIABLE = "PYLXC_TEST_CLOCK"


class Clock:
    """The clock of a daemon that is started after this was made."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._path = f"{daemon.dir}/clock"
        self._offset = dt.timedelta()
        self._write()
        daemon.env[_VARIABLE] = self._path
        daemon.env["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        daemon.module = "tests.support.clock"

    def advance(self, **time: float) -> None:
        """Set the clock forward (or back) by a `timedelta`'s arguments, and have the daemon look at it."""
        self._offset += dt.timedelta(**time)
        self._write()
        self._daemon.request("PATCH", "/1.0", {"config": {"user.clock": str(self._offset)}})

    def now(self) -> dt.datetime:
        """Return the time."""
        return dt.datetime.now(dt.UTC) + self._offset

    def _write(self) -> None:
        draft = f"{self._path}.new"
        Path(draft).write_text(str(self._offset.total_seconds()), encoding="ascii")
        os.rename(draft, self._path)


def _now() -> dt.datetime:
    seconds = Path(os.environ[_VARIABLE]).read_text(encoding="ascii")
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=float(seconds))


if __name__ == "__main__":
    from pylxc.daemon.main import main

    main(sys.argv[1:], clock=_now)
