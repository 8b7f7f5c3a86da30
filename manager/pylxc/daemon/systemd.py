"""What systemd's service manager and pylxcd say to each other. See: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket

from pylxc.errors import Unavailable

_FIRST_FD = 3


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


def listening_socket() -> socket.socket | None:
    """Return the unix socket that systemd has opened for this process, None when it was not.

    The variables are taken out of the environment: children must not believe that they are meant.

    Raises:
        Unavailable: the unit passes something other than one listening unix stream socket.
    """
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count:
        return None
    if count != "1":
        raise Unavailable(f"The socket unit passes {count} sockets, one is wanted")
    os.set_inheritable(_FIRST_FD, False)
    passed = socket.socket(fileno=_FIRST_FD)
    listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not listening:
        raise Unavailable("The socket unit passes something other than a listening unix stream socket")
    return passed
