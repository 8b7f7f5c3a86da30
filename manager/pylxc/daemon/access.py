"""The state directory, the pid lock and the socket: who may reach this daemon, and that it is the only one."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import socket
import stat
import time

from pylxc.errors import PylxcError, Unavailable
from pylxc.paths import Paths

BACKLOG = 1024
_PAUSE = 0.05
_SUN_PATH = 107
"""Bytes of a unix socket's path, at most. See: unix(7)"""


def prepare_directory(path: str) -> None:
    """Make the state directory when there is none, and refuse one that somebody other than root could change.

    Raises:
        Unavailable: it is not root's, is writable by others, or cannot be made.
    """
    try:
        os.makedirs(path, mode=0o711, exist_ok=True)
        status = os.stat(path)
    except OSError as error:
        raise Unavailable(f"The directory {path} cannot be used: {error.strerror}") from error
    if status.st_uid != 0:
        raise Unavailable(f"The directory {path} is not owned by root", hint=f"chown root:root {path}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unavailable(f"The directory {path} is writable by others than root", hint=f"chmod go-w {path}")


class PidLock:
    """pylxcd.pid: holds the daemon's pid, and a lock as long as it lives, so that there is one daemon per directory."""

    def __init__(self, paths: Paths) -> None:
        self._path = paths.pid_file
        self._root = paths.root
        self._fd = -1

    def acquire(self, *, wait: float = 0.0) -> None:
        """Take the lock and write the pid.

        Args:
            wait: seconds for which another daemon may still have it.

        Raises:
            Unavailable: another daemon has it.
        """
        end = time.monotonic() + wait
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.read(fd, 32).decode(errors="replace").strip()
                os.close(fd)
                if time.monotonic() < end:
                    time.sleep(_PAUSE)
                    continue
                raise Unavailable(f"Another pylxcd (pid {pid or 'unknown'}) is running on {self._root}") from None
            if self._is_current(fd):
                break
            os.close(fd)  # the daemon that had it has just removed it
        os.ftruncate(fd, 0)
        with contextlib.suppress(OSError):  # the disk may be full; it is the lock that counts
            os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Remove the file and give the lock up."""
        os.unlink(self._path)
        os.close(self._fd)

    def _is_current(self, fd: int) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(fd), there)


def group_id(name: str) -> int:
    """Return a group's id; raises PylxcError for an unknown one."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise PylxcError(f"Unknown group {name!r}", hint=f"groupadd --system {name}") from None


def listen(path: str, gid: int) -> socket.socket:
    """Return a listening unix socket at `path`: mode 0660, root's and group `gid`'s. A stale one is replaced.

    It appears under its name only when its owner and mode are right.

    Raises:
        Unavailable: something other than a socket is in the way, or the path is too long.
    """
    draft = f"{path}.new"
    if len(draft.encode()) > _SUN_PATH:
        raise Unavailable(f"The path {path} is too long for a unix socket", hint="choose a shorter PYLXC_DIR")
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise Unavailable(f"{path} is in the way: it is no socket")
    if os.path.lexists(draft):
        os.unlink(draft)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        listener.bind(draft)
    finally:
        os.umask(mask)
    os.chown(draft, 0, gid)
    os.chmod(draft, 0o660)
    listener.listen(BACKLOG)
    os.rename(draft, path)
    return listener
