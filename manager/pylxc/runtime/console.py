"""The container's console as its monitor holds it: the pty's master, what it has shown, and who is attached."""

from __future__ import annotations

import os
import socket
import struct
from fcntl import ioctl

_TIOCSWINSZ = 0x5414
_CHUNK = 4096
_BACKLOG = 1 << 20
"""An attached client that is this many bytes behind is cut off: a console must never block the container."""


class Ring:
    """The newest `limit` bytes of a stream; takes no more memory than it has content."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def append(self, data: bytes) -> None:
        """Add `data`, forget the oldest beyond the limit."""
        self._data += data
        excess = len(self._data) - self._limit
        # In steps of an eighth, so that a full ring does not move all of its bytes for every line.
        if excess > self._limit // 8 or (excess > 0 and self._limit < _CHUNK):
            del self._data[:excess]

    def content(self) -> bytes:
        """Return what is kept."""
        return bytes(self._data[-self._limit :]) if self._limit else b""

    def clear(self) -> None:
        """Forget everything."""
        self._data = bytearray()


class Console:
    """One pty master, drained into a ring, with at most one client attached."""

    def __init__(self, master_fd: int, limit: int) -> None:
        self.master_fd = master_fd
        self.client: socket.socket | None = None
        self.ring = Ring(limit)
        self._to_client = bytearray()
        self._to_master = bytearray()
        os.set_blocking(master_fd, False)

    @property
    def takes_input(self) -> bool:
        """Whether the client may type more; what the container does not read must not fill our memory."""
        return len(self._to_master) < _BACKLOG

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the client to read."""
        return bool(self._to_client)

    @property
    def wants_master_write(self) -> bool:
        """Whether bytes wait for the container to read."""
        return bool(self._to_master)

    def attach(self) -> socket.socket:
        """Return the client's end of a new attachment (the caller's to close); one there was ends."""
        self.detach()
        self.client, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.client.setblocking(False)
        return theirs

    def detach(self) -> None:
        """End the attachment, if there is one."""
        if self.client is not None:
            self.client.close()
            self.client = None
        self._to_client.clear()
        self._to_master.clear()

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters."""
        ioctl(self.master_fd, _TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read_master(self) -> bool:
        """Take what the container wrote; return False when there is nothing now (or nobody holds the slave)."""
        try:
            data = os.read(self.master_fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: every slave is closed. Init opens it again when it likes.
            return False
        self.ring.append(data)
        if self.client is not None:
            self._to_client += data
            self.write_client()
            if len(self._to_client) > _BACKLOG:
                self.detach()
        return bool(data)

    def read_client(self) -> None:
        """Take what the client typed; its end ends the attachment."""
        if self.client is None:
            return
        try:
            data = self.client.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.detach()
            return
        self._to_master += data
        self.write_master()

    def write_client(self) -> None:
        """Send the client what waits for it."""
        if self.client is None:
            return
        try:
            del self._to_client[: self.client.send(self._to_client, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            return
        except OSError:
            self.detach()

    def write_master(self) -> None:
        """Type what waits for the container."""
        try:
            del self._to_master[: os.write(self.master_fd, self._to_master)]
        except BlockingIOError:
            return
        except OSError:
            self._to_master.clear()
