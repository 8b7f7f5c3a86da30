"""Where volumes lie in their pools, and what is done with the trees there, whatever they are volumes of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from pylxc.drivers.storage import tree
from pylxc.drivers.storage.driver import PoolFull, Sink, StorageDriver
from pylxc.errors import BadRequest
from pylxc.paths import storage_name
from pylxc.revert import Reverter
from pylxc.services.storage.locks import NamedLocks
from pylxc.services.storage.sweeper import Sweeper

_COPIES_AT_ONCE = 16
_DIRECTORIES = {"container": "containers", "image": "images", "custom": "custom"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the volume of an instance, of an image or of a user is, or a snapshot of it when that is given."""

    pool: str
    project: str
    name: str
    snapshot: str = ""
    kind: str = "container"

    @property
    def path(self) -> str:
        """The volume's name for the pool's driver."""
        return f"{self.snapshots}/{self.snapshot}" if self.snapshot else f"{_DIRECTORIES[self.kind]}/{self._key}"

    @property
    def snapshots(self) -> str:
        """Where the snapshots of the volume are."""
        return f"{_DIRECTORIES[self.kind]}-snapshots/{self._key}"

    @property
    def _key(self) -> str:
        if self.kind == "image":
            return self.name
        # A volume's name may hold "_", which ends a project's: without it two volumes could have the same place.
        return f"{self.project}_{self.name}" if self.kind == "custom" else storage_name(self.project, self.name)

    def at(self, snapshot: str) -> Place:
        """Return the place of a snapshot of this volume."""
        return replace(self, snapshot=snapshot)


class Trees:
    """Makes, copies and removes the trees of volumes; their rows are others' business. Thread-safe.

    Args:
        driver: returns the driver of a pool by name; raises NotFound or Unavailable.
        sweeper: frees what deleted volumes took.

    Errors of all that makes a tree: `Internal` when no space is left or it fails otherwise; nothing is left then.
    """

    def __init__(self, driver: Callable[[str], StorageDriver], sweeper: Sweeper) -> None:
        self._driver = driver
        self._sweeper = sweeper
        self._readers = NamedLocks()

    def reading(self, place: Place) -> AbstractContextManager[None]:
        """Keep `writing` away from a volume while the block copies its tree: no file goes or is another meanwhile."""
        return self._readers.shared(f"{place.pool}/{place.path}")

    def writing(self, place: Place) -> AbstractContextManager[bool]:
        """Keep others from copying a volume's tree while the block changes it; gives False where somebody does so now.

        For what is changed beside everything else that is done with a volume.
        """
        return self._readers.attempt(f"{place.pool}/{place.path}")

    def path(self, place: Place) -> str:
        """Return the directory of a volume, whether it exists or not; raises NotFound or Unavailable."""
        return self._driver(place.pool).path(place.path)

    def create(self, place: Place, fill: Callable[[str], None] | None = None) -> None:
        """Make a volume: `fill` gets an empty directory; a snapshot's is read-only afterwards."""
        driver = self._driver(place.pool)
        self._with_room(lambda: driver.create_volume(place.path, fill, readonly=bool(place.snapshot)))

    def copy(self, source: Place, place: Place, snapshots: Sequence[str] = ()) -> None:
        """Make a volume that is a copy of another one, of this pool or of another one, with these of its snapshots.

        A snapshot's volume is read-only.
        """
        if not snapshots:
            self._copy(source, place)
            return
        # Where copies are instant all wait for the same commit of the file system; elsewhere the disk is busy enough.
        at_once = _COPIES_AT_ONCE if self._driver(place.pool).info.has_instant_copies else 1
        pairs = [(source, place), *((source.at(snapshot), place.at(snapshot)) for snapshot in snapshots)]
        try:
            with ThreadPoolExecutor(at_once, thread_name_prefix="copies") as threads:
                for made in [threads.submit(self._copy, *pair) for pair in pairs]:
                    made.result()
        except BaseException:
            self.delete(place)
            raise

    def _copy(self, source: Place, place: Place) -> None:
        driver, readonly = self._driver(place.pool), bool(place.snapshot)
        if source.pool == place.pool:
            with self.reading(source):
                self._with_room(lambda: driver.clone_volume(source.path, place.path, readonly=readonly))
            return
        with self.reading(source), self._of_one_moment(source) as directory:
            self._with_room(lambda: driver.import_volume(directory, place.path, readonly=readonly))

    def refresh(self, source: Place, place: Place) -> None:
        """Make an existing volume what `source` is, copying only what differs; all of it or nothing."""
        driver = self._driver(place.pool)
        with self.reading(source), self._of_one_moment(source, where=place.pool) as directory:
            self._with_room(lambda: driver.refresh_volume(directory, place.path))
        self._sweeper.add(driver)

    @contextmanager
    def _of_one_moment(self, source: Place, where: str = "") -> Iterator[str]:
        """Give the directory of a volume for another pool than `where` to copy, as a copy where that takes no time."""
        driver = self._driver(source.pool)
        if source.snapshot or source.pool == where or not driver.info.has_instant_copies:
            yield driver.path(source.path)
        else:
            with driver.aside(source.path) as aside:
                yield driver.path(aside)

    def restore(self, place: Place, snapshot: str) -> None:
        """Make a volume what a snapshot of it is; it is the one or the other at every moment."""
        driver = self._driver(place.pool)
        self._with_room(lambda: driver.replace_volume(place.at(snapshot).path, place.path))
        self._sweeper.add(driver)

    def flush(self, pool: str) -> None:
        """Have all that was made in a pool outlive the host: what it was made of may go then."""
        self._driver(pool).flush()

    def rename(self, place: Place, new: Place) -> None:
        """Rename a volume with its snapshots, or a snapshot, within a pool; what has the new name is no error."""
        driver = self._driver(place.pool)
        with Reverter() as revert:
            revert.add(driver.rename_volume, new.path, place.path)
            driver.rename_volume(place.path, new.path)
            if not place.snapshot and os.path.isdir(driver.path(place.snapshots)):
                driver.rename_volume(place.snapshots, new.snapshots)
            revert.success()

    def delete(self, place: Place) -> None:
        """Remove a volume with its snapshots, or a snapshot; none is no error."""
        driver = self._driver(place.pool)
        driver.delete_volume(place.path)  # first: when it cannot be, nothing is lost
        if place.kind != "image" and not place.snapshot:
            driver.delete_volumes(place.snapshots)
        self._sweeper.add(driver)

    @contextmanager
    def aside(self, place: Place) -> Iterator[str]:
        """Give a copy of a volume that is nobody's, as a path relative to the pool; it goes with the block."""
        with ExitStack() as stack:
            with self.reading(place):
                aside = stack.enter_context(self._driver(place.pool).aside(place.path))
            yield aside

    def has_streams(self, pool: str) -> bool:
        """Return whether a pool has a form of its own for copies of volumes; raises NotFound."""
        return self._driver(pool).info.has_streams

    def send(self, place: Place, snapshots: Sequence[str], prepare: Callable[[str], None], sink: Sink) -> None:
        """Write snapshots of a volume and then itself in the form of its pool; see `StorageDriver.send_volumes`."""
        names = [*(place.at(name).path for name in snapshots), place.path]
        driver = self._driver(place.pool)
        with self.reading(place):
            self._with_room(lambda: driver.send_volumes(names, prepare, sink))

    def receive(
        self,
        place: Place,
        snapshots: Sequence[str],
        backend: str,
        receive: Callable[[str], None],
        check: Callable[[str], None],
    ) -> None:
        """Make a volume with its snapshots of what another pool's driver `backend` wrote.

        See `StorageDriver.receive_volumes`.

        Raises:
            BadRequest: the pool's driver is another one.
        """
        driver = self._driver(place.pool)
        if driver.info.name != backend:
            raise BadRequest(
                f"Optimized backup storage driver {backend[:40]!r} differs from the target storage pool driver "
                f"{driver.info.name!r}",
                hint="import it into another pool, or export it without --optimized-storage",
            )
        names = [*(place.at(name).path for name in snapshots), place.path]
        try:
            self._with_room(lambda: driver.receive_volumes(names, receive, check))
        except BaseException:
            self.delete(place)
            raise

    def require_sizes(self, pool: str) -> None:
        """Check that a pool can limit volumes; raises NotFound and NotSupported."""
        self._driver(pool).require_sizes()

    def set_size(self, place: Place, size: int) -> None:
        """Let a volume take at most `size` bytes, 0 for no limit; what takes its place later is held to that too.

        Raises:
            NotSupported: the pool cannot limit it.
            BadRequest: it takes more now.
        """
        self._driver(place.pool).set_size(place.path, size)

    def size(self, place: Place) -> int:
        """Return the bytes that a volume may take, 0 for any number."""
        return self._driver(place.pool).size(place.path)

    def usage(self, place: Place) -> tuple[int, int] | None:
        """Return the bytes that a volume takes and may take, 0 for any number; None where the pool keeps no account."""
        driver = self._driver(place.pool)
        used = driver.usage(place.path)
        return None if used is None else (used, driver.size(place.path))

    def measure(self, place: Place) -> tuple[int, int]:
        """Return what `usage` does, counted file by file where the pool keeps no account."""
        return self.usage(place) or (tree.size(self.path(place)), 0)

    def _with_room(self, make: Callable[[], None]) -> None:
        """Make a volume; when the pool is full, once more after what was deleted lately has been freed."""
        try:
            make()
        except PoolFull:
            if not self._sweeper.finish():
                raise
            make()
