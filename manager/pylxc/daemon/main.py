"""`pylxcd`: command line and exit status."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pylxc import __version__
from pylxc.daemon import log as daemon_log
from pylxc.daemon.access import PidLock, group_id, prepare_directory
from pylxc.errors import DatabaseUnusable, PylxcError, from_os
from pylxc.kernel import libc
from pylxc.paths import Paths

if TYPE_CHECKING:
    from pylxc.db.models import Clock

log = logging.getLogger(__name__)

DATABASE_STATUS = 3
"""The exit status for a database that cannot be used. Trying again does not help: the unit does not."""

_LOCK_SECONDS = 30.0
"""How long a restore waits for the daemon to end."""


def main(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> None:
    """Run the daemon in the foreground until it is told to stop.

    Exits with 1 when it cannot start, with `DATABASE_STATUS` when that is the database's fault.

    Args:
        arguments: of the command line.
        clock: returns the time, for scheduled work; None for the host's.
    """
    options = _parse(arguments)
    try:
        status = _restore(options.restore) if options.restore else _run(options, clock)
    except DatabaseUnusable as error:
        sys.stderr.write(f"Error: {error}\n")
        status = DATABASE_STATUS
    except PylxcError as error:
        sys.stderr.write(f"Error: {error}\n")
        status = 1
    except OSError as error:
        sys.stderr.write(f"Error: {from_os(error)}\n")
        log.debug("Failed starting", exc_info=error)
        status = 1
    except Exception:
        log.exception("Failed")
        status = 1
    logging.shutdown()
    sys.stderr.flush()
    # Threads that still wait for something must not hold up the end; everything that matters is closed.
    os._exit(status)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="pylxcd",
        description="The pylxc daemon. It works on the directory that PYLXC_DIR (or LXD_DIR) names, "
        "/var/lib/pylxc by default, and runs in the foreground. SIGTERM ends it, SIGHUP has it begin anew with the "
        "program as it is then on disk, and SIGPWR stops the instances first.",
    )
    parser.add_argument("--group", default="root", help="group that may use the socket (default: root)")
    parser.add_argument("--logfile", default="", help="write the log to this file as well")
    parser.add_argument("--verbose", "-v", action="store_true", help="log what is done")
    parser.add_argument("--debug", "-d", action="store_true", help="log everything")
    parser.add_argument("--restore", default="", metavar="FILE", help="replace the database by a backup of it, and end")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, clock: Clock | None) -> int:
    if os.geteuid() != 0:
        raise PylxcError("pylxcd must be run as root")
    os.umask(0o022)
    daemon_log.configure(options.logfile, debug=options.debug, verbose=options.verbose)
    gid = group_id(options.group)
    paths = Paths()
    prepare_directory(paths.root)
    lock = PidLock(paths)
    lock.acquire()
    # One thread at a time computes: more arenas than these only keep what each of many threads once used.
    libc.limit_arenas(2)
    try:
        # What is slow to import comes after what may refuse to start.
        # A collection in the middle of it finds nothing and costs a seventh of the time.
        gc.disable()
        import asyncio

        from pylxc.daemon.daemon import Daemon
        from pylxc.db.models import now

        gc.freeze()
        gc.enable()
        begin_anew = asyncio.run(Daemon(paths, gid, clock or now).run())
    finally:
        lock.release()
    if begin_anew is not None:
        logging.shutdown()
        begin_anew()
    return 0


def _restore(source: str) -> int:
    if os.geteuid() != 0:
        raise PylxcError("pylxcd must be run as root")
    paths = Paths()
    prepare_directory(paths.root)
    lock = PidLock(paths)
    lock.acquire(wait=_LOCK_SECONDS)
    try:
        from pylxc.services import database

        former = database.restore(paths, source)
    finally:
        lock.release()
    sys.stdout.write("The database is restored" + (f"; the former one is {former}" if former else "") + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    main()
