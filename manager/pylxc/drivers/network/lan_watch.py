"""The watchdog of a change of the host's own interface: a process that outlives the daemon and undoes what it left.

It waits on a socket of the daemon's. When that closes, or the time is over, it undoes what the journal says; a change
that was kept has no journal any more. Standard library only.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys

from pylxc.drivers.network import lan_journal
from pylxc.errors import Unavailable
from pylxc.kernel import command

_READY_SECONDS = 10.0
_PACKAGE_ROOT = os.path.abspath(f"{__file__}/../../../..")
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from pylxc.drivers.network.lan_watch import main; main()"


class Watchdog:
    """A watchdog process. `close` once the change is settled.

    Args:
        journal: path of the journal.
        seconds: how long the change may take.

    Raises:
        Unavailable: it does not start.
    """

    def __init__(self, journal: str, seconds: float) -> None:
        self._socket, theirs = socket.socketpair()
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, _PACKAGE_ROOT, journal, str(theirs.fileno()), str(seconds)]
        with theirs:
            self._process = command.start(argv, pass_fds=[theirs.fileno()])
        self._socket.settimeout(_READY_SECONDS)
        if self._socket.recv(1) != b"r":
            self.close()
            raise Unavailable("The watchdog that brings the host's network back does not start")

    def close(self) -> None:
        """Let it look whether there is something to undo, and wait for its end."""
        self._socket.close()
        self._process.wait(60)


def main() -> None:
    """Run as the watchdog: argv is the package's directory, the journal, the socket, seconds."""
    _, path, number, seconds = sys.argv[1:]
    logging.basicConfig(format="pylxc watchdog: %(message)s")
    with socket.socket(fileno=int(number)) as daemon:
        daemon.send(b"r")
        select.select([daemon], [], [], float(seconds))
        if lan_journal.undo(path):
            logging.getLogger(__name__).warning("The network of the host is as it was before")


if __name__ == "__main__":
    main()
