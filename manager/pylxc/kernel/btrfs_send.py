"""Btrfs streams: what makes a read-only subvolume, or turns another one into it. See: linux/btrfs.h, btrfs-send(8)."""

from __future__ import annotations

import array
import struct

from pylxc.kernel import libc
from pylxc.kernel.btrfs import opened, subvolume_id

_SEND = 0x40489426  # _IOW(0x94, 38, 72 bytes)
_ARGS = struct.Struct("=qQQQQI28x")


def send(path: str, out_fd: int, parent: str = "") -> None:
    """Write a subvolume as a stream, to the end of what `out_fd` is.

    Args:
        path: a read-only subvolume; what is nested in it does not count.
        out_fd: a file that was opened to be written to.
        parent: a read-only subvolume that whoever reads the stream has; "" for none.

    Raises:
        OSError: EPERM when a subvolume is writable; what writing raises.
    """
    sources = array.array("Q")
    if parent:
        with opened(parent) as parent_fd:
            sources.append(subvolume_id(parent_fd))
    with opened(path) as fd:
        address = sources.buffer_info()[0] if sources else 0
        number = sources[0] if sources else 0
        libc.ioctl(fd, _SEND, bytearray(_ARGS.pack(out_fd, len(sources), address, number, 0, 0)))
