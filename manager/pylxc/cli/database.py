"""`pylxc admin backup` and `pylxc admin restore`: the daemon's database to and from files."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys

from pylxc.cli.grammar import Args, UsageError
from pylxc.cli.new_file import NewFile
from pylxc.errors import Conflict, Forbidden, Unavailable
from pylxc.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.grammar import Command
    from pylxc.cli.session import Session

_STOP_SECONDS = 60


def backup(session: Session, args: Args, command: Command) -> None:
    """Write the database as it is now to a file, which is whole when it appears, or to stdout."""
    target = args.words[0]
    if target == "-" and sys.stdout.isatty():
        raise UsageError("A database is not written to a terminal", command)
    response = session.client.stream("GET", "/internal/database")
    if target == "-":
        response.into(1)
        return
    with NewFile(target, 0o600, durable=True) as file:
        response.into(file.fd)


def restore(session: Session, args: Args) -> int:
    """Replace the database by a backup; a daemon that runs is stopped and started again, when that is allowed."""
    if os.geteuid() != 0:
        raise Forbidden("Only root may replace the database")
    daemon = _daemon()
    if daemon and not args.restart:
        raise Conflict("The daemon is running", hint="--restart stops it and starts it again; instances run on")
    if daemon:
        _stop(daemon)
    words = [sys.executable, "-m", "pylxc.daemon.main", "--restore", os.path.abspath(args.words[0])]
    status = subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode
    if daemon:
        session.client.get("/internal/ready")
    return status


def _daemon() -> int:
    """Return the daemon's pid, 0 when none runs. A connection would have systemd start one."""
    try:
        with open(Paths().pid_file, encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return 0
    except BlockingIOError:
        with open(Paths().pid_file, encoding="ascii") as file:
            return int(file.read().strip() or 0)
    return 0


def _stop(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        ended, _, _ = select.select([fd], [], [], _STOP_SECONDS)
    finally:
        os.close(fd)
    if not ended:
        raise Unavailable(f"The daemon (pid {pid}) has not stopped after {_STOP_SECONDS} seconds")
