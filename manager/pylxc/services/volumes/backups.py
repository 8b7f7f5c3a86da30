"""Backups of custom volumes: what is written of one, and how one is made of a backup."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pylxc import validate
from pylxc.db import backups as rows
from pylxc.db import models, storage, volumes
from pylxc.errors import Conflict
from pylxc.runtime.handle import Runtime
from pylxc.services.backups import document
from pylxc.services.backups.service import Backups, Subject, fields
from pylxc.services.backups.store import BackupStore
from pylxc.services.backups.streams import member, plan
from pylxc.services.backups.writer import INDEX, BackupOptions, OnProgress, Write
from pylxc.services.events import EventBus
from pylxc.services.operations import Operation, Operations
from pylxc.services.server import Server
from pylxc.services.storage.listing import url
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools
from pylxc.services.unarchive import Extractor, Part, Shift
from pylxc.services.volumes import backup_index
from pylxc.services.volumes.snapshots import render
from pylxc.services.volumes.store import VolumeStore, name_of, resources
from pylxc.wire.backups import VolumeBackup


class VolumeBackups(Backups):
    """Backups of custom volumes; thread-safe. What names one is its project, its pool and its name."""

    NOUN = "storage volume"

    def __init__(
        self,
        store: BackupStore,
        volumes: VolumeStore,
        runtime: Runtime,
        storage: StoragePools,
        operations: Operations,
        events: EventBus,
        server: Server,
    ) -> None:
        super().__init__(store, storage, operations, events, server)
        self._volumes = volumes
        self._extractor = Extractor(runtime, "backup")

    def subject(self, *names: str) -> Subject:
        """See `Backups`."""
        place = self._volumes.find(*names)

        def write(options: BackupOptions, write: Write, on_progress: OnProgress) -> None:
            self._write(place, options, write, on_progress)

        return Subject(
            owner=rows.Owner("volume", self._volumes.row(place).id),
            project=place.project,
            pool=place.pool,
            name=place.name,
            url=url(place).partition("?")[0],
            resources=resources(place),
            write=write,
        )

    def _render(self, row: models.Backup) -> VolumeBackup:
        return {**fields(row), "volume_only": row.alone}

    def _write(self, place: Place, options: BackupOptions, write: Write, on_progress: OnProgress) -> None:
        """Write a backup; raises like `BackupWriter.write`."""
        with self._volumes.holding(shared=[place]):
            snapshots = [] if options.alone else [render(row) for row in self._volumes.snapshots(place)]
            volume = self._storage.listing.get(place.pool, place.project, "custom", place.name)
            index = backup_index.index(volume, dict(self._storage.definition(place.pool)), snapshots)
            self._writer.write(
                place,
                index,
                {},
                still=(lambda: self._volumes.still(place)) if self._in_use(place) else None,
                options=options,
                write=write,
                on_progress=on_progress,
            )

    def _in_use(self, place: Place) -> bool:
        with self._db.reading() as session:
            return bool(volumes.attached(session, name_of(place)))

    # Reading back

    def take(self, project: str, path: str, *, name: str, pool: str) -> Operation:
        """Start making a volume of a backup; takes the file over, which `BackupStore.incoming` gave.

        Args:
            project: the volume's, as `pool` is its pool.
            path: the file.
            name: the volume's, "" for the backup's own.
            pool: where it goes.

        Raises:
            NotFound: there is no such pool.
        """
        with self._db.reading() as session:
            target = self._volumes.place(session, project, pool, name)

        def run(path: str, _operation: Operation) -> dict[str, str]:
            index = backup_index.parse(self._extractor.read(path, INDEX, document.MAX_BYTES))
            place = Place(pool, target.project, name or index.head.name, kind="custom")
            validate.volume_name(place.name, place.project)
            with self._db.reading() as session:
                if storage.volume(session, pool, place.project, "custom", place.name, state=None) is not None:
                    raise Conflict("Volume by that name already exists", hint="give another name")
            self._volumes.require_size(pool, index.config)
            with self._volumes.holding(place):
                self._make(place, index, path)
            self._volumes.tell("created", place)
            return {"volume": place.name}

        return self._restore(project, path, resources(target) if name else {}, run)

    def _make(self, place: Place, index: backup_index.Index, path: str) -> None:
        def fill(place: Place, shift: Shift | None) -> Callable[[str], None]:
            parts = [Part(path=path, member=member(place))]
            return lambda target: self._extractor.unpack(parts, target, shift)

        trees = self._volumes.trees
        with self._volumes.made(place, index.description, index.config) as row:
            shifts = {snapshot.row.name: snapshot.shift for snapshot in index.snapshots}
            if index.head.optimized:
                streams = plan(self._extractor, path, place, {**shifts, "": index.shift})
                receive = partial(self._extractor.receive, path, streams)
                trees.receive(place, index.head.snapshots, index.head.backend, receive, lambda _target: None)
            else:
                trees.create(place, fill(place, index.shift))
                for name, shift in shifts.items():
                    trees.create(place.at(name), fill(place.at(name), shift))
            self._volumes.fit(place, index.config)
            with self._db.transaction() as session:
                for snapshot in index.snapshots:
                    snapshot.row.storage_volume_id, snapshot.row.state = row.id, "created"
                    session.add(snapshot.row)
                storage.set_volume_state(session, row.id, "created")
