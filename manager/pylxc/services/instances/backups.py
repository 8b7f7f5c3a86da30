"""Backups of instances: what is written of one, and how one is made of a backup, in LXD's layout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from pylxc.db import backups as rows
from pylxc.db import instances, profiles, projects
from pylxc.db.models import Backup, Config
from pylxc.errors import BadRequest, NotFound
from pylxc.runtime.handle import Runtime
from pylxc.services.backups import document
from pylxc.services.backups.service import Backups, Subject, fields
from pylxc.services.backups.store import BackupStore
from pylxc.services.backups.streams import member, plan
from pylxc.services.backups.writer import INDEX, BackupOptions, OnProgress, Write
from pylxc.services.events import EventBus
from pylxc.services.images.unpack import check_layout
from pylxc.services.instances import backup_index, root_size
from pylxc.services.instances.backup_files import BackupFiles
from pylxc.services.instances.create import Creator
from pylxc.services.instances.expand import Record, is_root_disk, load, root_disk, url
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.snapshots import Snapshots
from pylxc.services.operations import Operation, Operations
from pylxc.services.server import Server
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools
from pylxc.services.storage.volumes import BACKUP_YAML
from pylxc.services.unarchive import Extractor, Part, Shift
from pylxc.wire.backups import InstanceBackup


class InstanceBackups(Backups):
    """Backups of instances; thread-safe. What names one is its project and its name."""

    NOUN = "instance"

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        store: BackupStore,
        runtime: Runtime,
        storage: StoragePools,
        operations: Operations,
        events: EventBus,
        server: Server,
        locks: InstanceLocks,
        lifecycle: Lifecycle,
        snapshots: Snapshots,
        creator: Creator,
        files: BackupFiles,
    ) -> None:
        super().__init__(store, storage, operations, events, server)
        self._locks = locks
        self._lifecycle = lifecycle
        self._snapshots = snapshots
        self._creator = creator
        self._files = files
        self._extractor = Extractor(runtime, "backup")

    def subject(self, *names: str) -> Subject:
        """See `Backups`."""
        project, name = names
        with self._db.reading() as session:
            found = load(session, project, name)

        def write(options: BackupOptions, write: Write, on_progress: OnProgress) -> None:
            self._write(found, options, write, on_progress)

        return Subject(
            owner=rows.Owner("instance", found.id),
            project=project,
            pool=found.pool,
            name=name,
            url=f"/1.0/instances/{name}",
            resources={"instances": [url(project, name)]},
            write=write,
        )

    def _render(self, row: Backup) -> InstanceBackup:
        return {**fields(row), "instance_only": row.alone, "container_only": row.alone}

    def _write(self, found: Record, options: BackupOptions, write: Write, on_progress: OnProgress) -> None:
        """Write a backup; raises Conflict when the instance is busy, and like `BackupWriter.write`."""
        with self._locks.hold(found.key, "backup", shared=True):
            snapshots = [] if options.alone else self._snapshots.list(found.project, found.name)
            described = self._files.describe(found, snapshots)
            self._writer.write(
                Place(found.pool, found.project, found.name),
                backup_index.index(described),
                {BACKUP_YAML: document.dump(described)},
                still=self._keeping_still(found) if self._lifecycle.status(found.key) != "Stopped" else None,
                options=options,
                write=write,
                on_progress=on_progress,
            )

    def _keeping_still(self, found: Record) -> Callable[[], Any]:
        freezes = self._lifecycle.changes_while_copied(found)
        return lambda: self._lifecycle.frozen(found.key) if freezes else nullcontext()

    # Reading back

    def take(self, project: str, path: str, *, name: str, pool: str) -> Operation:
        """Start making an instance of a backup; takes the file over, which `BackupStore.incoming` gave.

        Args:
            project: the instance's.
            path: the file.
            name: the instance's, "" for the backup's own.
            pool: where it goes; "" for the backup's own, or the default profile's where there is none of that name.

        Raises:
            NotFound: there is no such pool.
        """
        if pool:
            self._storage.get(pool)

        def run(path: str, operation: Operation) -> dict[str, Any]:
            index = backup_index.parse(self._extractor.read(path, INDEX, document.MAX_BYTES))
            body = self._adapted(project, index, name or index.name, pool)
            made = self._creator.adopt(project, body, lambda found: self._unpack(index, found, path), operation)
            return {"instance": made.name}

        return self._restore(project, path, {"instances": [url(project, name)]} if name else {}, run)

    def _adapted(self, project: str, index: backup_index.Index, name: str, pool: str) -> Any:
        """Return the body that creates a backup's instance here."""
        body: dict[str, Any] = {**index.config, "name": name}
        same = name == index.name
        body["config"] = _without_volatile(index.config.get("config", {}), same=same)
        devices: dict[str, dict[str, str]] = {
            key: dict(value) for key, value in index.config.get("devices", {}).items()
        }
        if not pool and index.pool in self._storage.names():
            pool = index.pool
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "profiles")
            known = {profile.name: profile for profile in profiles.of_project(session, scope)}
        wanted = body.get("profiles") or []
        for profile in wanted:
            if profile not in known:
                raise NotFound(f"The backup's profile {profile!r} does not exist here", hint="create it first")
        expanded = {
            name: dict(device) for profile in wanted for name, device in known[profile].devices.items()
        } | devices
        roots = {key: device for key, device in expanded.items() if is_root_disk(device)}
        if not roots and "default" in known:
            roots = {key: dict(device) for key, device in known["default"].devices.items() if is_root_disk(device)}
        key, root = root_disk(roots)
        if pool:
            devices[key] = {**root, "pool": pool}
        elif root["pool"] not in self._storage.names():
            raise BadRequest(
                f"The backup's storage pool {root['pool']!r} does not exist here", hint="name one: --storage"
            )
        elif key not in expanded:
            devices[key] = dict(root)
        return {**body, "devices": devices}

    def _unpack(self, index: backup_index.Index, found: Record, path: str) -> None:
        volumes = self._storage.volumes
        place = Place(found.pool, found.project, found.name)

        def fill(place: Place, shift: Shift | None) -> Callable[[str], None]:
            def unpack(target: str) -> None:
                self._extractor.unpack([Part(path=path, member=member(place))], target, shift)
                check_layout(target, "backup")

            return unpack

        size = root_size.wanted(found.expanded_devices)
        shifts = {snapshot["name"]: backup_index.shift(snapshot) for snapshot in index.snapshots}
        if index.head.optimized:
            streams = plan(self._extractor, path, place, {**shifts, "": index.shift})
            volumes.receive_instance(
                place,
                index.head.snapshots,
                index.head.backend,
                lambda target: self._extractor.receive(path, streams, target),
                lambda target: check_layout(target, "backup"),
                size=size,
            )
        else:
            volumes.create_instance(found.pool, found.project, found.name, None, fill(place, index.shift), size=size)
            for name, shift in shifts.items():
                volumes.fill_snapshot(found.pool, found.project, found.name, name, fill(place.at(name), shift))
        with self._db.transaction() as session:
            owner = instances.get(session, found.project, found.name, state=None)
            for snapshot in index.snapshots:
                row = backup_index.snapshot_row(owner.id, snapshot)
                row.config = _without_volatile(row.config, same=found.name == index.name)
                session.add(row)


def _without_volatile(config: Config, *, same: bool) -> Config:
    """Return a backup's configuration without what its host has noted: here it would reach into this one.

    `same` keeps addresses, for an instance of the same name.
    """
    return {
        key: value
        for key, value in config.items()
        if not key.startswith("volatile.") or key == "volatile.base_image" or (same and key.endswith(".hwaddr"))
    }
