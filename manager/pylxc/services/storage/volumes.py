"""Volumes of images and instances: one row each, whose state says whether the directory is whole.

A volume's row is there before its directory and goes after it, so that nothing on disk is ever without a row:
`settle` removes what a row in state "creating" or "deleting" names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy.exc import IntegrityError

from pylxc import units
from pylxc.db import models, projects, storage
from pylxc.db.engine import Database
from pylxc.drivers.storage import tree
from pylxc.drivers.storage.driver import PoolFull, StorageDriver
from pylxc.errors import Conflict, NotFound, PylxcError
from pylxc.paths import Paths, storage_name
from pylxc.services.storage.locks import NamedLocks
from pylxc.services.storage.sweeper import Sweeper
from pylxc.wire import times
from pylxc.wire.storage import StorageVolume

log = logging.getLogger(__name__)

Names = list[str]  # inside the class `list` is its method

BACKUP_YAML = "backup.yaml"
"""What an instance's volume says about it beside rootfs/: there from when it is whole until it is to go."""

_DIRECTORIES = {"container": "containers", "image": "images", "custom": "custom"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance's volume is, or a snapshot's when that is given."""

    pool: str
    project: str
    name: str
    snapshot: str = ""

    @property
    def path(self) -> str:
        """The volume's name for the pool's driver."""
        if self.snapshot:
            return _snapshot_place(self.project, self.name, self.snapshot)
        return _place("container", self.project, self.name)


class Volumes:
    """Makes, clones and removes volumes.

    Args:
        db: where the rows are.
        paths: where the pools are.
        driver: returns the driver of a pool by name; raises NotFound or Unavailable.
        sweeper: frees what deleted volumes took.
    """

    def __init__(self, db: Database, paths: Paths, driver: Callable[[str], StorageDriver], sweeper: Sweeper) -> None:
        self._db = db
        self._paths = paths
        self._driver = driver
        self._sweeper = sweeper
        self._locks = NamedLocks()
        self._left: Sequence[models.StorageVolume] = ()

    def settle(self) -> None:
        """Remove the volumes that a killed daemon left half made or half deleted; call once at start."""
        with self._db.reading() as session:
            self._left = storage.unsettled_volumes(session)
        self.settle_rest()

    def settle_rest(self) -> None:
        """Remove those that `settle` could not, as their pools were away."""
        left, self._left = self._left, []
        for row in left:
            try:
                self._drop(row)
                log.info("Removed %s volume %s that was left half made or half deleted", row.type, row.name)
            except PylxcError as error:
                log.warning("Cannot remove volume %s of pool %s: %s", row.name, row.pool.name, error)
                self._left = [*self._left, row]

    # Images

    def ensure_image(self, pool: str, fingerprint: str, unpack: Callable[[str], None]) -> None:
        """Make an image's volume in a pool unless it is there.

        Args:
            pool: name of the pool.
            fingerprint: of the image.
            unpack: fills the empty directory that it is given with rootfs/, metadata.yaml and templates/. Runs once
                per pool and image, however many ask at the same time.
        """
        if self._has_image(pool, fingerprint):
            return
        with self._locks.exclusive(f"{pool}/{fingerprint}"):
            if self._has_image(pool, fingerprint):
                return
            driver = self._driver(pool)
            row = self._add(pool, "default", "image", fingerprint)
            try:
                self._with_room(lambda: driver.create_volume(_place("image", "default", fingerprint), unpack))
            except BaseException:
                self._forget(row)
                raise
            self._finish(row)

    def _has_image(self, pool: str, fingerprint: str) -> bool:
        with self._db.reading() as session:
            return storage.volume(session, pool, "default", "image", fingerprint) is not None

    def images(self) -> set[str]:
        """Return the fingerprints of the images that have volumes, in any pool."""
        with self._db.reading() as session:
            return storage.images(session)

    def image_pools(self, fingerprint: str) -> Names:
        """Return the names of the pools in which an image has a volume."""
        with self._db.reading() as session:
            return storage.image_pools(session, fingerprint)

    def delete_image(self, fingerprint: str) -> None:
        """Remove an image's volumes from every pool, when nobody copies from them any more."""
        with self._db.reading() as session:
            rows = storage.image_volumes(session, fingerprint)
        for row in rows:
            with self._locks.exclusive(f"{row.pool.name}/{fingerprint}"):
                self._delete(row)

    # Instances

    def create_instance(
        self,
        pool: str,
        project: str,
        name: str,
        fingerprint: str | None,
        fill: Callable[[str], None] | None = None,
        *,
        size: str = "",
    ) -> None:
        """Make an instance's volume: a copy of an image's volume; with fingerprint None what `fill` puts in, or empty.

        `size` is the most that it may take, "" for the pool's `volume.size`.

        Raises:
            NotFound: no such pool, or the image has no volume in it (see `ensure_image`).
            Conflict: the instance has a volume.
            BadRequest: there is more in it than `size`.
            NotSupported: the pool cannot limit it.
            Internal: no space left; nothing is left behind.
        """
        driver = self._driver(pool)
        place = _place("container", project, name)
        row = self._add(pool, project, "container", name)
        try:
            if fingerprint is None:
                self._with_room(lambda: driver.create_volume(place, fill))
            else:
                with self._locks.shared(f"{pool}/{fingerprint}"):
                    if not self._has_image(pool, fingerprint):
                        raise NotFound(f"Image {fingerprint[:12]} has no volume in storage pool {pool!r}")
                    self._with_room(lambda: driver.clone_volume(_place("image", "default", fingerprint), place))
            self._limit_new(driver, row, place, size)
        except BaseException:
            self._forget(row)
            raise
        self._finish(row)

    def copy_instance(
        self, source: Place, pool: str, project: str, name: str, *, size: str = "", counts: bool = True
    ) -> None:
        """Make an instance's volume as a copy of another instance's, or of a snapshot, of this pool or another one.

        Args:
            source: what is copied.
            pool: where the copy goes, like the next two.
            project: the instance's.
            name: the instance's.
            size: as for `create_instance`.
            counts: False leaves its row in state "creating": should the daemon die before the caller says that it is
                "created", nothing of it is left.

        Raises:
            Conflict: the instance has a volume.
            BadRequest: there is more in it than `size`.
            NotSupported: the pool cannot limit it.
            Internal: no space left; nothing is left behind.
        """
        row = self._add(pool, project, "container", name)
        try:
            place = _place("container", project, name)
            self._copy(source, pool, place)
            self._limit_new(self._driver(pool), row, place, size)
        except BaseException:
            self._forget(row)
            raise
        if counts:
            self._finish(row)

    def _limit_new(self, driver: StorageDriver, row: models.StorageVolume, place: str, size: str) -> None:
        """Limit a volume that was just made; when that cannot be, it is gone again."""
        try:
            if wanted := units.parse_bytes(size or row.config.get("size", "0")):
                driver.set_size(place, wanted)
        except BaseException:
            driver.delete_volume(place)
            self._sweeper.add(driver)
            raise

    def resize_instance(self, pool: str, project: str, name: str, size: str) -> None:
        """Let an instance's volume take at most `size`, "" for what the pool's `volume.size` was when it was made.

        Raises:
            BadRequest: it takes more now.
            NotSupported: the pool cannot limit it.
        """
        driver, place = self._driver(pool), _place("container", project, name)
        wanted = units.parse_bytes(size or self.get(pool, project, "container", name)["config"].get("size", "0"))
        if wanted != driver.size(place):
            driver.set_size(place, wanted)

    def require_sizes(self, pool: str) -> None:
        """Check that a pool can limit volumes; raises NotFound and NotSupported."""
        self._driver(pool).require_sizes()

    def copy_snapshot(self, source: Place, pool: str, project: str, name: str, snapshot: str) -> None:
        """Make a snapshot's volume as a copy of another one; raises Internal."""
        self._copy(source, pool, _snapshot_place(project, name, snapshot), readonly=True)

    def refresh_instance(self, source: Place, pool: str, project: str, name: str) -> None:
        """Make an instance's volume what `source` is, copying only what differs; all of it or nothing.

        Raises:
            Internal: no space left.
        """
        driver = self._driver(pool)
        directory, place = self._driver(source.pool).path(source.path), _place("container", project, name)
        self._with_room(lambda: driver.refresh_volume(directory, place))
        self._sweeper.add(driver)

    def _copy(self, source: Place, pool: str, place: str, *, readonly: bool = False) -> None:
        driver = self._driver(pool)
        if source.pool == pool:
            self._with_room(lambda: driver.clone_volume(source.path, place, readonly=readonly))
        else:
            directory = self._driver(source.pool).path(source.path)
            self._with_room(lambda: driver.import_volume(directory, place, readonly=readonly))

    @contextmanager
    def readable(self, source: Place, still: Callable[[], AbstractContextManager[None]] | None) -> Iterator[str]:
        """Give a volume's tree, which nobody changes while the block runs, as a path relative to its pool's directory.

        Args:
            source: the volume.
            still: keeps its instance still while a copy is made to be read instead; None when it is still anyway.
        """
        if still is None:
            yield source.path
            return
        with ExitStack() as stack:
            with still():
                aside = stack.enter_context(self._driver(source.pool).aside(source.path))
            yield aside

    def delete_instance(self, pool: str, project: str, name: str) -> None:
        """Remove an instance's volume with its snapshots'; none is no error."""
        with self._db.reading() as session:
            row = storage.volume(session, pool, project, "container", name, state=None)
        if row is not None:
            self._delete(row)

    def rename_instance(self, pool: str, project: str, name: str, new: str) -> None:
        """Rename an instance's volume, or finish a rename that was cut off in the middle.

        Raises:
            NotFound: the instance has no volume.
            Conflict: the new name has one.
        """
        driver = self._driver(pool)
        with self._db.reading() as session:
            row = storage.volume(session, pool, project, "container", name)
            taken = storage.volume(session, pool, project, "container", new, state=None)
        if row is None:
            if taken is not None:
                return
            raise NotFound("Storage volume not found")
        if taken is not None:
            raise Conflict(f"A volume named {new!r} exists already")
        # The row is what counts. A crash between the two leaves the row with the old name and the directory with the
        # new one; the caller repeats the rename, and finds the directory renamed.
        driver.rename_volume(_place("container", project, name), _place("container", project, new))
        snapshots = _snapshot_place(project, name)
        if os.path.isdir(driver.path(snapshots)):
            driver.rename_volume(snapshots, _snapshot_place(project, new))
        with self._db.transaction() as session:
            session.get_one(models.StorageVolume, row.id).name = new

    def path(self, pool: str, project: str, name: str, snapshot: str = "") -> str:
        """Return the directory of an instance's volume, or of a snapshot's; raises Unavailable."""
        return self._driver(pool).path(Place(pool, project, name, snapshot).path)

    def usage(self, pool: str, project: str, name: str) -> tuple[int, int] | None:
        """Return the bytes that an instance's volume takes and those that it may take, 0 for any number.

        It is None where the pool keeps no account.
        """
        driver, place = self._driver(pool), _place("container", project, name)
        used = driver.usage(place)
        return None if used is None else (used, driver.size(place))

    # Snapshots of instances: they have rows of their own, which the caller keeps

    def create_snapshot(self, pool: str, project: str, name: str, snapshot: str) -> None:
        """Copy an instance's volume as it is now.

        Raises:
            Internal: no space left, or the copy failed; nothing of it is left.
        """
        driver = self._driver(pool)
        source, place = _place("container", project, name), _snapshot_place(project, name, snapshot)
        self._with_room(lambda: driver.clone_volume(source, place, readonly=True))

    def fill_snapshot(self, pool: str, project: str, name: str, snapshot: str, fill: Callable[[str], None]) -> None:
        """Make a snapshot's volume of what `fill` puts into the empty directory that it is given."""
        driver = self._driver(pool)
        self._with_room(lambda: driver.create_volume(_snapshot_place(project, name, snapshot), fill, readonly=True))

    def delete_snapshot(self, pool: str, project: str, name: str, snapshot: str) -> None:
        """Remove a snapshot's volume; none is no error."""
        driver = self._driver(pool)
        driver.delete_volume(_snapshot_place(project, name, snapshot))
        self._sweeper.add(driver)

    def rename_snapshot(self, pool: str, project: str, name: str, snapshot: str, new: str) -> None:
        """Rename a snapshot's volume; one that has the new name already is no error."""
        places = (_snapshot_place(project, name, text) for text in (snapshot, new))
        self._driver(pool).rename_volume(*places)

    def restore_snapshot(self, pool: str, project: str, name: str, snapshot: str) -> None:
        """Make an instance's volume what a snapshot of it is; it is the one or the other at every moment."""
        driver = self._driver(pool)
        source, place = _snapshot_place(project, name, snapshot), _place("container", project, name)
        self._with_room(lambda: driver.replace_volume(source, place))
        self._sweeper.add(driver)

    # Any volume

    def list(self, pool: str, project: str | None, kind: str | None = None) -> list[StorageVolume]:
        """Return a pool's volumes of `project` (None: all) and `kind` (None: all)."""
        with self._db.reading() as session:
            storage.pool(session, pool)
            return [_render(row) for row in storage.volumes(session, pool, project=project, kind=kind)]

    def get(self, pool: str, project: str, kind: str, name: str) -> StorageVolume:
        """Return a volume; raises NotFound."""
        with self._db.reading() as session:
            storage.pool(session, pool)
            row = storage.volume(session, pool, project, kind, name)
        if row is None:
            raise NotFound("Storage volume not found")
        return _render(row)

    def measure(self, pool: str, project: str, kind: str, name: str) -> int:
        """Return the bytes that a volume takes, counted file by file where the pool keeps no account."""
        self.get(pool, project, kind, name)
        driver = self._driver(pool)
        place = _place(kind, project, name)
        known = driver.usage(place)
        return tree.size(driver.path(place)) if known is None else known

    def _add(self, pool: str, project: str, kind: str, name: str) -> models.StorageVolume:
        try:
            with self._db.transaction() as session:
                found = storage.pool(session, pool)
                default = found.config.get("volume.size") if kind != "image" else None
                row = models.StorageVolume(
                    storage_pool_id=found.id,
                    project_id=projects.get(session, project).id,
                    type=kind,
                    name=name,
                    config={"size": default} if default else {},
                )
                session.add(row)
        except IntegrityError:
            raise Conflict(f"A volume named {name!r} exists already in storage pool {pool!r}") from None
        return row

    # A row is on the disk before what it names is made or removed. Its end need not be: an image's volume is made
    # again, an instance's own row, written after it, takes it along, and what is deleted is deleted once more.

    def _finish(self, row: models.StorageVolume) -> None:
        with self._db.transaction(outlives_host=False) as session:
            storage.set_volume_state(session, row.id, "created")

    def _forget(self, row: models.StorageVolume) -> None:
        with self._db.transaction(outlives_host=False) as session:
            storage.delete_volume(session, row.id)

    def _delete(self, row: models.StorageVolume) -> None:
        with self._db.transaction() as session:
            storage.set_volume_state(session, row.id, "deleting")
        self._drop(row)

    def _drop(self, row: models.StorageVolume) -> None:
        driver = self._driver(row.pool.name)
        if row.type == "container":
            # Whoever finds the tree after a loss of the database is not to take it for an instance any more.
            with suppress(OSError):
                os.unlink(f"{driver.path(_place(row.type, row.project.name, row.name))}/{BACKUP_YAML}")
            driver.delete_volumes(_snapshot_place(row.project.name, row.name))
        driver.delete_volume(_place(row.type, row.project.name, row.name))
        self._forget(row)
        self._sweeper.add(driver)

    def _with_room(self, make: Callable[[], None]) -> None:
        """Make a volume; when the pool is full, once more after what was deleted lately has been freed."""
        try:
            make()
        except PoolFull:
            if not self._sweeper.finish():
                raise
            make()


def _place(kind: str, project: str, name: str) -> str:
    return f"{_DIRECTORIES[kind]}/{name if kind == 'image' else storage_name(project, name)}"


def _snapshot_place(project: str, name: str, snapshot: str = "") -> str:
    return f"containers-snapshots/{storage_name(project, name)}/{snapshot}".rstrip("/")


def _render(row: models.StorageVolume) -> StorageVolume:
    url = f"/1.0/{'images' if row.type == 'image' else 'instances'}/{quote(row.name)}"
    project = row.project.name
    return {
        "name": row.name,
        "description": row.description,
        "type": row.type,
        "content_type": row.content_type,
        "config": row.config,
        "used_by": [url if project == "default" else f"{url}?project={quote(project)}"],
        "location": "none",
        "project": project,
        "created_at": times.timestamp(row.created_at),
    }
