"""What the first pool of a host should be: the best that its kernel, its tools and its file system can do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from pylxc import units
from pylxc.drivers.storage.btrfs import LOOP_SMALLEST
from pylxc.kernel import btrfs, inode, mount

_ROOM = 2 * LOOP_SMALLEST
"""Free space from which on a loop file is made: it could grow to its full size, and as much would be left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A way to make the pool.

    Attributes:
        driver: its name.
        config: what the driver needs.
        reason: what it is and why, as it follows on "Storage pool default is".
    """

    driver: str
    config: dict[str, str] = field(default_factory=dict)
    reason: str


def choices(path: str, *, loop: bool) -> Iterator[Choice]:
    """Return ways to make a pool at a path below storage-pools/, the best first: to be tried in turn, then `last`.

    Args:
        path: where it will be.
        loop: whether btrfs on a loop file may be one of them; see `obstacle`.
    """
    parent = os.path.dirname(path)
    if btrfs.is_btrfs(parent):
        yield Choice(
            driver="btrfs", config={"source": path}, reason=f"btrfs, as {parent} is: snapshots and copies take no time"
        )
    elif _shares_data(parent):
        yield Choice(driver="dir", reason=f"a directory (dir), as the file system of {parent} has reflinks")
    if loop:
        yield Choice(driver="btrfs", reason="btrfs on a loop file: snapshots and copies take no time")


def obstacle(directory: str) -> str:
    """Return what keeps a host from having btrfs on a loop file in a directory, "" for nothing."""
    if not shutil.which("mkfs.btrfs"):
        return "mkfs.btrfs is missing (package btrfs-progs)"
    if not mount.is_known("btrfs"):
        return "the kernel has no btrfs"
    if (free := shutil.disk_usage(directory).free) < _ROOM:
        return f"a btrfs pool wants {units.binary_size(_ROOM, 0)} of free space and {units.binary_size(free)} are there"
    return ""


def last(reason: str) -> Choice:
    """Return the way that is always there; `reason` is what kept the host from a better one."""
    return Choice(driver="dir", reason=f"a directory (dir), as {reason}: snapshots and copies take time and space")


def _shares_data(directory: str) -> bool:
    with tempfile.TemporaryFile(dir=directory) as one, tempfile.TemporaryFile(dir=directory) as other:
        one.write(b"x")
        one.flush()
        try:
            inode.share(one.fileno(), other.fileno())
        except OSError:
            return False
    return True
