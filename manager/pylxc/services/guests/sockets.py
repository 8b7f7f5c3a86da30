"""The sockets of the guest API: one per running instance, in a directory that the instance sees as /dev/lxd.

Which socket was connected to tells who asks. The directory is mounted into the container and stays; the socket in it
is made anew by every daemon, so a container that has outlived one daemon finds the next one under the same name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from pylxc.paths import Paths

NAME = "sock"
_BACKLOG = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Who is at the other side of a socket; `root_uid` is what its root is called on the host."""

    key: str
    project: str
    name: str
    root_uid: int


class Server(Protocol):
    """What answers on the sockets. Methods may be called from any thread, and return at once."""

    def add(self, guest: Guest, listener: socket.socket) -> None:
        """Serve a listening socket; from then on the server's to close."""

    def remove(self, key: str) -> None:
        """End the service of a guest, and its connections."""


class GuestSockets:
    """Makes and removes sockets; thread-safe. Until a server is attached, who connects waits."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._waiting: dict[str, tuple[Guest, socket.socket]] = {}
        self._open: set[str] = set()

    def attach(self, server: Server) -> None:
        """Hand all sockets, now and later, to what answers on them."""
        with self._lock:
            self._server = server
            waiting, self._waiting = self._waiting, {}
            for guest, listener in waiting.values():
                server.add(guest, listener)

    def prepare(self, key: str) -> None:
        """Make the directory that a container sees as /dev/lxd."""
        os.makedirs(self._paths.devlxd, mode=0o700, exist_ok=True)
        os.chmod(self._paths.devlxd, 0o700)  # nobody of the host but root reaches a guest's socket
        os.makedirs(self._paths.instance_devlxd(key), mode=0o755, exist_ok=True)

    def open(self, guest: Guest) -> None:
        """Make a guest's socket unless it is there; the directory is prepared."""
        with self._lock:
            if guest.key in self._open:
                return
            listener = _listen(self._paths.instance_devlxd(guest.key))
            self._open.add(guest.key)
            if self._server is None:
                self._waiting[guest.key] = (guest, listener)
            else:
                self._server.add(guest, listener)

    def close(self, key: str) -> None:
        """Remove a guest's socket, if there is one; its connections end."""
        with self._lock:
            if key not in self._open:
                return
            self._open.discard(key)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._paths.instance_devlxd(key)}/{NAME}")
            waiting = self._waiting.pop(key, None)
            if waiting is not None:
                waiting[1].close()
            elif self._server is not None:
                self._server.remove(key)

    def remove(self, key: str) -> None:
        """Remove socket and directory: the container has ended."""
        self.close(key)
        directory = self._paths.instance_devlxd(key)
        try:
            os.rmdir(directory)
        except OSError:  # a daemon that was killed has left its socket, or it is not there
            shutil.rmtree(directory, ignore_errors=True)

    def sweep(self, running: Collection[str]) -> None:
        """Remove the directories of containers that have ended while no daemon was there."""
        with contextlib.suppress(FileNotFoundError):
            for key in set(os.listdir(self._paths.devlxd)) - set(running):
                self.remove(key)


def _listen(directory: str) -> socket.socket:
    """Return a socket that listens in `directory`; it appears under its name when everything is right."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    # Through the descriptor: a socket's path may have no more than 107 bytes.
    here = f"/proc/self/fd/{directory_fd}"
    try:
        for left in os.listdir(here):
            os.unlink(left, dir_fd=directory_fd)
        listener.bind(f"{here}/{NAME}.new")
        # Everybody inside may connect, as with LXD; who is not root there is told so.
        os.chmod(f"{here}/{NAME}.new", 0o666)  # noqa: S103
        listener.listen(_BACKLOG)
        os.rename(f"{NAME}.new", NAME, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory_fd)
    return listener
