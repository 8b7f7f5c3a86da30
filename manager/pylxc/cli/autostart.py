"""Starts the daemon for a command that finds none: the caller is root, and no other socket was asked for."""

from __future__ import annotations

import errno
import os
import select
import sys
from _socket import AF_UNIX, SOCK_DGRAM
from _socket import socket as Socket  # noqa: N812  (it is a class)

from pylxc.client.http import Unreachable, connect_unix
from pylxc.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

START_SECONDS = 60


def start_daemon(socket_path: str, error: Unreachable) -> Any:
    """Start `pylxcd` and return a connection to it once it is ready.

    Raises:
        Unreachable: the caller may not, or the daemon does not come up; the text says what to do.
    """
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else 0
    if number in {errno.EACCES, errno.EPERM}:
        raise Unreachable(
            f"You may not use {socket_path}", hint="become root, or a member of the group that owns the socket"
        ) from error
    if number not in {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}:
        raise error
    if os.environ.get("LXD_SOCKET"):
        raise Unreachable(f"No daemon answers on {socket_path}, which $LXD_SOCKET names") from error
    if os.geteuid() != 0:
        raise Unreachable(f"No daemon answers on {socket_path}", hint="start it as root: sudo pylxcd") from error
    return _start(socket_path)


def _start(socket_path: str) -> Any:
    paths = Paths()
    log = f"{paths.logs}/pylxcd.log"
    os.makedirs(paths.root, mode=0o711, exist_ok=True)
    os.makedirs(paths.logs, mode=0o700, exist_ok=True)
    notify = Socket(AF_UNIX, SOCK_DGRAM)
    # An abstract address leaves no file behind; the daemon reports to it as it does to systemd.
    name = f"pylxc-start-{os.getpid()}"
    notify.bind(f"\0{name}")
    # A daemon of this installation, from wherever the command runs; its own session, so that no ^C reaches it.
    daemon = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "pylxc.daemon.main"],
        {**os.environ, "NOTIFY_SOCKET": f"@{name}"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    pid_fd = os.pidfd_open(daemon)
    try:
        ready = _wait_ready(notify, pid_fd)
    finally:
        notify.close()
        os.close(pid_fd)
    try:
        return connect_unix(socket_path)
    except Unreachable as error:
        state = "is still starting" if ready is None else "did not start"
        raise Unreachable(f"The daemon {state}: {_last_line(log)}", hint=f"see {log}") from error


def _wait_ready(notify: Socket, pid_fd: int) -> bool | None:
    """Return True when the daemon is ready, False when it has ended, None when it takes too long."""
    poll = select.poll()
    poll.register(notify.fileno(), select.POLLIN)
    poll.register(pid_fd, select.POLLIN)
    while ready := dict(poll.poll(START_SECONDS * 1000)):
        if notify.fileno() in ready and b"READY=1" in notify.recv(4096).split(b"\n"):
            return True
        if pid_fd in ready:
            return False
    return None


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in log if line.strip()]
    except OSError:
        return "it left no log"
    return lines[-1].removeprefix("Error: ") if lines else "it left no log"
