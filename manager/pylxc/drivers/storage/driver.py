"""What a storage driver does. A pool is a driver over one place; a volume is named by its place in the pool.

Volume names are relative paths, `containers/c1`, `images/FINGERPRINT`, `containers-snapshots/c1/s0`: what LXD has below
`storage-pools/POOL/`. A volume is there as a whole or not at all, whenever the daemon or the machine dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pylxc.errors import Internal
from pylxc.revert import Reverter


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a driver is and can do.

    Attributes:
        name: as `GET /1.0` has it, like the next two.
        version: of what the driver stands on.
        remote: whether several hosts share its pools.
        has_instant_copies: a copy takes no time, is of one moment, and shares its data with the source.
        has_streams: volumes can be written in a form of its own; see `StorageDriver.send_volumes`.
    """

    name: str
    version: str
    remote: bool = False
    has_instant_copies: bool = False
    has_streams: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Space and inodes of a pool's file system; bytes and counts."""

    space_used: int
    space_total: int
    inodes_used: int
    inodes_total: int


Sink = Callable[[int, str], AbstractContextManager[int]]
"""Gives the descriptor of a file for a stream."""


class PoolFull(Internal):
    """The pool has no space left."""


class StorageDriver(Protocol):
    """A pool. Methods are thread-safe for different volumes; the caller keeps two from one volume at a time.

    Errors are `PylxcError`s: `Unavailable` when the pool cannot be used, `PoolFull`, `Internal` when it is broken.
    """

    info: Info

    def __init__(self, path: str, config: Mapping[str, str]) -> None:
        """Take the pool's directory below storage-pools/ and its configuration; touch nothing."""

    def create(self) -> dict[str, str]:
        """Make the pool, and return the configuration keys that it gives values to; on error nothing of it is left."""

    def delete(self) -> None:
        """Remove the pool and all that is in it; also one that is half made."""

    def open(self) -> None:
        """Make the pool usable at daemon start; what a killed daemon left in the middle of a change is for `sweep`."""

    def adopt(self, revert: Reverter) -> dict[str, str]:
        """Bring into reach a pool that is there and that no database knows; changes nothing in it.

        Returns:
            The configuration keys that its place gives values to.

        Raises:
            BadRequest: no pool is there.
        """

    def update(self, config: Mapping[str, str]) -> None:
        """Make the pool what a changed configuration says, which holds from now on; once more is no error.

        Raises:
            BadRequest: it cannot be; all is as it was.
        """

    def close(self) -> None:
        """Let go of what `open` holds, for the host to go down; nothing uses the pool any more."""

    def path(self, volume: str) -> str:
        """Return the directory of a volume, whether it exists or not."""

    def create_volume(self, volume: str, fill: Callable[[str], None] | None = None, *, readonly: bool = False) -> None:
        """Make a volume: `fill` gets a directory (empty, root's alone) and fills it; None leaves it empty.

        A custom volume's own mode is what `fill` makes it.
        """

    def clone_volume(self, source: str, volume: str, *, readonly: bool = False) -> None:
        """Make a volume that is a complete, independent copy of `source`; nothing will write to it with `readonly`."""

    def import_volume(self, directory: str, volume: str, *, readonly: bool = False) -> None:
        """Make a volume that is a copy of a directory outside of the pool: another pool's volume."""

    def refresh_volume(self, directory: str, volume: str) -> None:
        """Make an existing volume a copy of a directory, copying no more than what differs; all of it or nothing."""

    def replace_volume(self, source: str, volume: str) -> None:
        """Make an existing volume a copy of `source`; it is the one or the other at every moment."""

    def aside(self, volume: str) -> AbstractContextManager[str]:
        """Give a copy of a volume that is nobody's, as a path relative to the pool; it goes with the block."""

    def send_volumes(self, volumes: Sequence[str], prepare: Callable[[str], None], sink: Sink) -> None:
        """Write volumes in the pool's own form, each as what differs from the one before.

        Args:
            volumes: of one kind, related to each other: snapshots, and at the end what they are of.
            prepare: gets the directory of a copy of the last one, and may change it.
            sink: gives a file for each stream; it is called with the number of the volume in `volumes`, and the path of
                a part of it, "/" for all but what the others hold.
        """

    def receive_volumes(
        self, volumes: Sequence[str], receive: Callable[[str], None], check: Callable[[str], None]
    ) -> None:
        """Make volumes of streams; all but the last one are read-only.

        Args:
            volumes: as for `send_volumes`.
            receive: makes them in the directory that it is given, called by their numbers.
            check: gets the directory of each; what it raises ends the work.
        """

    def flush(self) -> None:
        """Have all that was made outlive the host: what it was made of may go then."""

    def delete_volume(self, volume: str) -> None:
        """Remove a volume from sight, at once; one that does not exist is no error."""

    def delete_volumes(self, directory: str) -> None:
        """Remove all volumes that are right below a place, like an instance's snapshots; none is no error."""

    def sweep(self) -> None:
        """Free what deleted volumes took; may take long, and is safe to be cut off at any point."""

    def rename_volume(self, volume: str, new: str) -> None:
        """Give a volume another name; one that has it already, from a change that was cut off, is no error."""

    def require_sizes(self) -> None:
        """Check that the size of volumes can be limited.

        Raises:
            NotSupported: the pool's file system cannot; the hint says which one could.
        """

    def set_size(self, volume: str, size: int) -> None:
        """Let a volume take at most `size` bytes, 0 for no limit; what takes its place later is held to that too.

        Raises:
            NotSupported: see `require_sizes`.
            BadRequest: it takes more now.
        """

    def size(self, volume: str) -> int:
        """Return the most bytes that a volume may take, 0 for no limit; copies of it have none."""

    def usage(self, volume: str) -> int | None:
        """Return the bytes that a volume takes, None where the file system keeps no account."""

    def resources(self) -> Resources:
        """Return space and inodes."""
