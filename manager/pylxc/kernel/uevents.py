"""What the kernel tells of devices that come, go or change. See: netlink(7), NETLINK_KOBJECT_UEVENT."""

from __future__ import annotations

import socket

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_BYTES = 1 << 16
_ROOM = 1 << 20


class Uevents:
    """A socket that hears of devices, from when it is made on; for one thread."""

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        self._socket.bind((0, _KERNEL_GROUP))

    def fileno(self) -> int:
        """Return the descriptor, readable when there is an event."""
        return self._socket.fileno()

    def read(self) -> dict[str, str]:
        """Wait for an event and return it: ACTION, SUBSYSTEM, DEVPATH, ...; empty when it comes from somebody else.

        Raises:
            OSError: ENOBUFS: events were lost.
        """
        data, sender = self._socket.recvfrom(_BYTES)
        if sender[0] != 0:  # any process may send; the kernel's port is 0
            return {}
        pairs = (line.partition("=") for line in data.decode(errors="replace").split("\0")[1:])
        return {name: value for name, _, value in pairs if name}

    def close(self) -> None:
        """Close it."""
        self._socket.close()
