"""Volumes of images and instances, and the rows of all volumes, whose state says whether the directory is whole.

A volume's row is there before its directory and goes after it, so that nothing on disk is ever without a row:
`settle` removes what a row in state "creating" or "deleting" names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from sqlalchemy.exc import IntegrityError

from pylxc import units
from pylxc.db import models, projects, storage
from pylxc.db.engine import Database
from pylxc.errors import Conflict, NotFound, PylxcError
from pylxc.revert import Reverter
from pylxc.services.projects import admission
from pylxc.services.storage.locks import NamedLocks
from pylxc.services.storage.places import Place, Trees

log = logging.getLogger(__name__)

BACKUP_YAML = "backup.yaml"
"""What an instance's volume says about it beside rootfs/: there from when it is whole."""


class Volumes:
    """Makes, clones and removes the volumes of images and instances, and keeps the rows of all volumes.

    Args:
        db: where the rows are.
        trees: what the pools hold.
    """

    def __init__(self, db: Database, trees: Trees) -> None:
        self._db = db
        self._trees = trees
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
            if not self._has_image(pool, fingerprint):
                place = _image(pool, fingerprint)
                self._make(place, lambda: self._trees.create(place, unpack))

    def _has_image(self, pool: str, fingerprint: str) -> bool:
        with self._db.reading() as session:
            return storage.volume(session, pool, "default", "image", fingerprint) is not None

    def images(self) -> set[str]:
        """Return the fingerprints of the images that have volumes, in any pool."""
        with self._db.reading() as session:
            return storage.images(session)

    def image_pools(self, fingerprint: str) -> list[str]:
        """Return the names of the pools in which an image has a volume."""
        with self._db.reading() as session:
            return storage.image_pools(session, fingerprint)

    def delete_image(self, fingerprint: str) -> None:
        """Remove an image's volumes from every pool, when nobody copies from them any more."""
        with self._db.reading() as session:
            rows = storage.image_volumes(session, fingerprint)
        for row in rows:
            with self._locks.exclusive(f"{row.pool.name}/{fingerprint}"):
                self.remove(row)

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
        place = Place(pool, project, name)

        def make() -> None:
            if fingerprint is None:
                self._trees.create(place, fill)
                return
            with self._locks.shared(f"{pool}/{fingerprint}"):
                if not self._has_image(pool, fingerprint):
                    raise NotFound(f"Image {fingerprint[:12]} has no volume in storage pool {pool!r}")
                self._trees.copy(_image(pool, fingerprint), place)

        self._make(place, make, size)

    def copy_instance(
        self,
        source: Place,
        pool: str,
        project: str,
        name: str,
        *,
        size: str = "",
        snapshots: Sequence[str] = (),
        counts: bool = True,
    ) -> None:
        """Make an instance's volume as a copy of another instance's, or of a snapshot, of this pool or another one.

        Args:
            source: what is copied.
            pool: where the copy goes, like the next two.
            project: the instance's.
            name: the instance's.
            size: as for `create_instance`.
            snapshots: the names of those of its snapshots that are copied as well.
            counts: False leaves its row in state "creating": should the daemon die before the caller says that it is
                "created", nothing of it is left.

        Raises:
            Conflict: the instance has a volume.
            BadRequest: there is more in it than `size`.
            NotSupported: the pool cannot limit it.
            Internal: no space left; nothing is left behind.
        """
        place = Place(pool, project, name)
        self._make(place, lambda: self._trees.copy(source, place, snapshots), size, counts=counts)

    def receive_instance(
        self,
        place: Place,
        snapshots: Sequence[str],
        backend: str,
        receive: Callable[[str], None],
        check: Callable[[str], None],
        *,
        size: str = "",
    ) -> None:
        """Make an instance's volume and those of snapshots of streams; see `Trees.receive`, and `create_instance`."""
        self._make(place, lambda: self._trees.receive(place, snapshots, backend, receive, check), size)

    def resize_instance(self, pool: str, project: str, name: str, size: str) -> None:
        """Let an instance's volume take at most `size`, "" for what the pool's `volume.size` was when it was made.

        Raises:
            BadRequest: it takes more now.
            NotSupported: the pool cannot limit it.
        """
        place = Place(pool, project, name)
        with self._db.reading() as session:
            row = storage.volume(session, pool, project, "container", name)
        if row is None:
            raise NotFound("Storage volume not found")
        wanted = units.parse_bytes(size or row.config.get("size", "0"))
        if wanted != self._trees.size(place):
            self._trees.set_size(place, wanted)

    def is_limited(self, pool: str, project: str, name: str) -> bool:
        """Tell whether an instance's volume has a size."""
        return self._trees.size(Place(pool, project, name)) > 0

    def require_sizes(self, pool: str) -> None:
        """Check that a pool can limit volumes; raises NotFound and NotSupported."""
        self._trees.require_sizes(pool)

    def copy_snapshot(self, source: Place, pool: str, project: str, name: str, snapshot: str) -> None:
        """Make a snapshot's volume as a copy of another one; raises Internal."""
        self._trees.copy(source, Place(pool, project, name, snapshot))

    def flush(self, pool: str) -> None:
        """See `Trees.flush`."""
        self._trees.flush(pool)

    def refresh_instance(self, source: Place, pool: str, project: str, name: str) -> None:
        """Make an instance's volume what `source` is, copying only what differs; all of it or nothing.

        Raises:
            Internal: no space left.
        """
        self._trees.refresh(source, Place(pool, project, name))

    @contextmanager
    def readable(self, source: Place, still: Callable[[], AbstractContextManager[None]] | None) -> Iterator[str]:
        """Give a volume's tree, which nobody changes while the block runs, as a path relative to its pool's directory.

        Args:
            source: the volume.
            still: keeps its instance still while a copy is made to be read instead; None when it is still anyway.
        """
        if still is None:
            with self._trees.reading(source):
                yield source.path
            return
        with ExitStack() as stack:
            with still():
                aside = stack.enter_context(self._trees.aside(source))
            yield aside

    def delete_instance(self, pool: str, project: str, name: str) -> None:
        """Remove an instance's volume with its snapshots'; none is no error."""
        with self._db.reading() as session:
            row = storage.volume(session, pool, project, "container", name, state=None)
        if row is not None:
            self.remove(row)

    def rename_instance(self, pool: str, project: str, name: str, new: str) -> None:
        """Rename an instance's volume, or finish a rename that was cut off in the middle.

        Raises:
            NotFound: the instance has no volume.
            Conflict: the new name has one.
        """
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
        places = Place(pool, project, name), Place(pool, project, new)
        with Reverter() as revert:
            self._trees.rename(*places)
            revert.add(self._trees.rename, *reversed(places))
            with self._db.transaction() as session:
                session.get_one(models.StorageVolume, row.id).name = new
            revert.success()

    def path(self, pool: str, project: str, name: str, snapshot: str = "") -> str:
        """Return the directory of an instance's volume, or of a snapshot's; raises Unavailable."""
        return self._trees.path(Place(pool, project, name, snapshot))

    def usage(self, pool: str, project: str, name: str) -> tuple[int, int] | None:
        """Return the bytes that an instance's volume takes and those that it may take, 0 for any number.

        It is None where the pool keeps no account.
        """
        return self._trees.usage(Place(pool, project, name))

    # Snapshots of instances: they have rows of their own, which the caller keeps

    def create_snapshot(self, pool: str, project: str, name: str, snapshot: str) -> None:
        """Copy an instance's volume as it is now.

        Raises:
            Internal: no space left, or the copy failed; nothing of it is left.
        """
        place = Place(pool, project, name)
        self._trees.copy(place, place.at(snapshot))

    def fill_snapshot(self, pool: str, project: str, name: str, snapshot: str, fill: Callable[[str], None]) -> None:
        """Make a snapshot's volume of what `fill` puts into the empty directory that it is given."""
        self._trees.create(Place(pool, project, name, snapshot), fill)

    def delete_snapshot(self, pool: str, project: str, name: str, snapshot: str) -> None:
        """Remove a snapshot's volume; none is no error."""
        self._trees.delete(Place(pool, project, name, snapshot))

    def rename_snapshot(self, pool: str, project: str, name: str, snapshot: str, new: str) -> None:
        """Rename a snapshot's volume; one that has the new name already is no error."""
        place = Place(pool, project, name)
        self._trees.rename(place.at(snapshot), place.at(new))

    def restore_snapshot(self, pool: str, project: str, name: str, snapshot: str) -> None:
        """Make an instance's volume what a snapshot of it is; it is the one or the other at every moment."""
        self._trees.restore(Place(pool, project, name), snapshot)

    # Rows, of any volume. One is on the disk before what it names is made or removed. Its end need not be: an image's
    # volume is made again, an instance's own row, written after it, takes it along, and what is deleted is deleted
    # once more.

    def add(
        self, place: Place, *, description: str = "", config: models.Config | None = None, takes: bool = True
    ) -> models.StorageVolume:
        """Write the row of a volume that is about to be made, and return it.

        Args:
            place: where it will be.
            description: the volume's.
            config: likewise; None for the size that the pool gives to volumes.
            takes: False when it is to take the place of another volume of its project.

        Raises:
            NotFound: there is no such pool or project.
            Conflict: there is a volume of this name.
            Forbidden: the project does not allow another volume of a user's.
        """
        path = self._trees.path(place)
        is_there = os.path.lexists(path)
        try:
            with self._db.transaction() as session:
                pool = storage.pool(session, place.pool)
                if (
                    is_there
                    and storage.volume(session, place.pool, place.project, place.kind, place.name, state=None) is None
                ):
                    raise Conflict(
                        f"{path!r} is there already, and is no volume that this server knows",
                        hint="see pylxc admin recover, or move it away",
                    )
                if config is None:
                    size = pool.config.get("volume.size") if place.kind != "image" else None
                    config = {"size": size} if size else {}
                project = projects.get(session, place.project)
                row = models.StorageVolume(
                    pool=pool,
                    project=project,
                    type=place.kind,
                    name=place.name,
                    description=description,
                    config=config,
                )
                session.add(row)
                if place.kind == "custom" and takes:
                    admission.check(session, project)
        except IntegrityError:
            raise Conflict(f"A volume named {place.name!r} exists already in storage pool {place.pool!r}") from None
        return row

    def finish(self, row: models.StorageVolume) -> None:
        """Have everybody see a volume that is whole."""
        with self._db.transaction(outlives_host=False) as session:
            storage.set_volume_state(session, row.id, "created")

    def remove(self, row: models.StorageVolume) -> None:
        """Remove a volume with its snapshots, in whatever state it is."""
        with self._db.transaction() as session:
            storage.set_volume_state(session, row.id, "deleting")
        self._drop(row)

    def _make(self, place: Place, make: Callable[[], None], size: str = "", *, counts: bool = True) -> None:
        row = self.add(place)
        try:
            make()
            self._limit_new(place, units.parse_bytes(size or row.config.get("size", "0")))
        except BaseException:
            self._forget(row)
            raise
        if counts:
            self.finish(row)

    def _limit_new(self, place: Place, size: int) -> None:
        """Limit a volume that was just made; when that cannot be, it is gone again."""
        try:
            if size:
                self._trees.set_size(place, size)
        except BaseException:
            self._trees.delete(place)
            raise

    def _forget(self, row: models.StorageVolume) -> None:
        with self._db.transaction(outlives_host=False) as session:
            storage.delete_volume(session, row.id)

    def _drop(self, row: models.StorageVolume) -> None:
        place = Place(row.pool.name, row.project.name, row.name, kind=row.type)
        self._trees.delete(place)
        self._forget(row)


def _image(pool: str, fingerprint: str) -> Place:
    return Place(pool, "default", fingerprint, kind="image")
