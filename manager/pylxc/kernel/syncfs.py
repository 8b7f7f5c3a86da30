"""Write what waits in memory to the disk. See: syncfs(2)."""

from __future__ import annotations

import os

from pylxc.kernel.libc import syscall


def syncfs(path: str) -> None:
    """Write all of the file system that a directory is on, and wait until it is there.

    Raises:
        OSError: EIO, ENOSPC or EDQUOT when something could not be written.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscall("syncfs", fd, path=path)
    finally:
        os.close(fd)
