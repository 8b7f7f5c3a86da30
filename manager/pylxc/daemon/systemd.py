"""What systemd's service manager and pylxcd say to each other. See: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Mapping

from pylxc.errors import Unavailable

_FIRST_FD = 3
_OTHERS = "PYLXC_LISTENERS"
_OWN = "pylxcd"
"""The name of a socket that a daemon passes to itself, and has to remove at its end."""


def notify(state: str) -> None:
    """Tell the service manager, if there is one: `READY=1`, `STOPPING=1`. Failing to is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.connect("\0" + address[1:] if address.startswith("@") else address)
            manager.sendall(state.encode())
        except OSError:
            return


def notify_reloading() -> None:
    """Tell the service manager that `READY=1` follows when the daemon has begun anew."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def begin_anew(listener: socket.socket, others: Mapping[str, socket.socket], *, is_own: bool) -> None:
    """Replace this process by one of the same command line, and pass `listener` to it as systemd does.

    The program is read from disk again. Whoever connects meanwhile waits in the socket's backlog, or in that of one of
    the `others`, which `passed_on` returns there.
    """
    names = {"LISTEN_FDNAMES": _OWN} if is_own else {}
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), **names)
    # Copies out of the way of the first one, and not closed by what follows.
    copies = {name: fcntl.fcntl(other, fcntl.F_DUPFD, _FIRST_FD + 1) for name, other in others.items()}
    os.environ[_OTHERS] = ",".join(f"{name}={fd}" for name, fd in copies.items())
    os.dup2(listener.fileno(), _FIRST_FD)
    os.set_inheritable(_FIRST_FD, True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


def passed_on() -> dict[str, socket.socket]:
    """Return the `others` that `begin_anew` has passed to this process, by name."""
    found = {}
    for entry in filter(None, os.environ.pop(_OTHERS, "").split(",")):
        name, _, fd = entry.partition("=")
        found[name] = socket.socket(fileno=int(fd))
        found[name].set_inheritable(False)
    return found


def listening_socket() -> tuple[socket.socket | None, bool]:
    """Return the unix socket that this process was given, and whether it is somebody else's, who keeps it open.

    There is none for a daemon that was started by hand. The variables are taken out of the environment: children must
    not believe that they are meant.

    Raises:
        Unavailable: the unit passes something other than one listening unix stream socket.
    """
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    is_kept = os.environ.pop("LISTEN_FDNAMES", None) != _OWN
    if pid != str(os.getpid()) or not count:
        return None, False
    if count != "1":
        raise Unavailable(f"The socket unit passes {count} sockets, one is wanted")
    os.set_inheritable(_FIRST_FD, False)
    passed = socket.socket(fileno=_FIRST_FD)
    listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not listening:
        raise Unavailable("The socket unit passes something other than a listening unix stream socket")
    return passed, is_kept
