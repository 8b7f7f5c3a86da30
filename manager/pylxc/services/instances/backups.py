"""Backups of instances: written to a file or straight to a client, and read back, in LXD's layout."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from pylxc import validate
from pylxc.db import backups as rows
from pylxc.db import instances, profiles, projects
from pylxc.db.engine import Database
from pylxc.db.models import Backup
from pylxc.errors import BadRequest, Conflict, NotFound, NotSupported
from pylxc.meter import Meter
from pylxc.paths import Paths
from pylxc.revert import Reverter
from pylxc.runtime.handle import Runtime
from pylxc.services import archive
from pylxc.services.events import EventBus
from pylxc.services.images.importing import expiry
from pylxc.services.images.store import explain
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
from pylxc.services.unarchive import Extractor, Part
from pylxc.wire.instances import InstanceBackup, InstanceBackupsPost
from pylxc.wire.times import timestamp

log = logging.getLogger(__name__)

_INCOMING = ".incoming-"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """How a backup is made."""

    instance_only: bool
    compression: str


class Backups:
    """Backups; thread-safe. A backup is a file called by its row's id, so that renaming anything moves no file."""

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        db: Database,
        paths: Paths,
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
        self._db = db
        self._root = paths.backups
        self._storage = storage
        self._operations = operations
        self._events = events
        self._server = server
        self._locks = locks
        self._lifecycle = lifecycle
        self._snapshots = snapshots
        self._creator = creator
        self._files = files
        self._extractor = Extractor(runtime, "backup")

    def reconcile(self) -> None:
        """Remove what a dead daemon left half made, and files that are nobody's; call once at start."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        os.chmod(self._root, 0o700)
        with self._db.transaction() as session:
            for row in rows.every(session):
                if row.state != "created" or not os.path.exists(self._path(row.id)):
                    session.delete(row)
            session.flush()
            known = {str(row.id) for row in rows.every(session)}
        for entry in list(os.scandir(self._root)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name not in known:
                os.unlink(entry.path)

    # Reading

    def list(self, project: str, name: str) -> list[InstanceBackup]:
        """Return an instance's backups, oldest first; raises NotFound."""
        with self._db.reading() as session:
            return [_render(row) for row in rows.of_instance(session, load(session, project, name).id)]

    def get(self, project: str, name: str, backup: str) -> InstanceBackup:
        """Return a backup; raises NotFound."""
        with self._db.reading() as session:
            return _render(rows.get(session, project, name, backup))

    def file(self, project: str, name: str, backup: str) -> str:
        """Return the path of a backup's file; raises NotFound."""
        with self._db.reading() as session:
            path = self._path(rows.get(session, project, name, backup).id)
        self._tell("retrieved", project, name, backup)
        return path

    # Making

    def options(self, body: InstanceBackupsPost) -> BackupOptions:
        """Return how a request wants a backup to be made.

        Raises:
            BadRequest: an unknown compression.
            NotSupported: the form of one storage driver is asked for.
        """
        if body.get("optimized_storage"):
            raise NotSupported("Backups in the form of one storage driver are not supported", hint="leave it out")
        compression = body.get("compression_algorithm") or str(self._server.value("backups.compression_algorithm"))
        alone = body.get("instance_only", False) or body.get("container_only", False)
        return BackupOptions(instance_only=alone, compression=archive.check_compression(compression))

    def create(self, project: str, name: str, body: InstanceBackupsPost) -> Operation:
        """Start writing a backup of an instance, which may run meanwhile.

        Raises:
            NotFound: there is no such instance.
            BadRequest: a malformed name or time, or an unknown compression.
            Conflict: the name is taken.
            NotSupported: see `options`.
        """
        options = self.options(body)
        expires_at = expiry(body.get("expires_at"))
        with self._db.reading() as session:
            found = load(session, project, name)
            taken = rows.claimed(session, found.id)
        backup = body.get("name") or next(f"backup{n}" for n in range(len(taken) + 1) if f"backup{n}" not in taken)
        validate.snapshot_name(backup)
        if backup in taken:
            raise Conflict(f'Backup "{name}/{backup}" already exists')

        def run(operation: Operation) -> None:
            with self._db.transaction() as session:
                row = Backup(
                    instance_id=instances.get(session, project, name).id,
                    name=backup,
                    instance_only=options.instance_only,
                    expires_at=expires_at,
                )
                session.add(row)
            with Reverter() as revert:
                revert.add(self.drop, row.id)
                self._write_file(found, options, self._path(row.id), operation)
                with self._db.transaction() as session:
                    rows.get(session, project, name, backup, state="creating").state = "created"
                revert.success()
            self._tell("created", project, name, backup)

        return self._operations.start(
            "Backing up instance",
            run,
            project=project,
            resources={"instances": [url(project, name)], "backups": [f"/1.0/backups/{backup}"]},
            cancellable=True,
        )

    def _write_file(self, found: Record, options: BackupOptions, path: str, operation: Operation) -> None:
        meter = Meter(operation.progress, "Backing up", key="create_backup_progress")

        def on_progress(size: int) -> None:
            operation.check_cancelled()
            meter.add(size)

        try:
            with open(path, "xb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o600)
                self.write(found, options, file.write, on_progress)
                os.fsync(file.fileno())
        except OSError as error:
            raise explain(error, "Failed writing the backup") from error

    def write(
        self,
        found: Record,
        options: BackupOptions,
        write: Callable[[bytes], object],
        on_progress: Callable[[int], object] | None = None,
    ) -> None:
        """Write a backup; see `archive.write_tar`.

        Raises:
            Conflict: the instance is busy.
            Internal: it fails.
        """
        with self._locks.hold(found.key, "backup", shared=True), ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=_INCOMING, dir=self._root))
            snapshots = [] if options.instance_only else self._snapshots.list(found.project, found.name)
            self._write_index(found, snapshots, scratch)
            runs = self._lifecycle.status(found.key) != "Stopped"
            still = self._keeping_still(found) if runs else None
            place = Place(found.pool, found.project, found.name)
            tree = stack.enter_context(self._storage.volumes.readable(place, still))
            pool = os.path.dirname(os.path.dirname(self._storage.volumes.path(found.pool, found.project, found.name)))
            members = [
                f"--directory={scratch}",
                "backup/index.yaml",
                "backup/container/backup.yaml",
                f"--directory={os.path.realpath(pool)}",
            ]
            for snapshot in snapshots:
                taken = Place(found.pool, found.project, found.name, snapshot["name"])
                members.append(taken.path)
            names = {tree: "backup/container", f"containers-snapshots/{found.key}": "backup/snapshots"}
            renames = [f"--transform=flags=rh;s,^{re.escape(old)},{new}," for old, new in names.items()]
            # The tree's own says what it was when it last changed, and is not there in each.
            without = ["--anchored", "--no-wildcards", f"--exclude={tree}/{BACKUP_YAML}"]
            archive.write_tar(
                [*renames, *without, *members, tree],
                options.compression,
                write,
                on_progress=on_progress or (lambda _size: None),
            )

    def _keeping_still(self, found: Record) -> Callable[[], Any]:
        freezes = self._lifecycle.changes_while_copied(found)
        return lambda: self._lifecycle.frozen(found.key) if freezes else nullcontext()

    def _write_index(self, found: Record, snapshots: Sequence[Any], directory: str) -> None:
        described = self._files.describe(found, snapshots)
        os.makedirs(f"{directory}/backup/container")
        for path, data in (("index.yaml", backup_index.index(described)), ("container/backup.yaml", described)):
            with open(f"{directory}/backup/{path}", "w", encoding="utf-8") as file:
                file.write(backup_index.dump(data))

    # Changing

    def rename(self, project: str, name: str, backup: str, new: str) -> Operation:
        """Start renaming a backup.

        Raises:
            NotFound: there is none.
            BadRequest: the new name is none.
            Conflict: the new name is taken.
        """
        validate.snapshot_name(new)
        with self._db.reading() as session:
            row = rows.get(session, project, name, backup)
            if new in rows.claimed(session, row.instance_id):
                raise Conflict(f'Backup "{name}/{new}" already exists')

        def run(_operation: Operation) -> None:
            with self._db.transaction() as session:
                rows.get(session, project, name, backup).name = new
            self._tell("renamed", project, name, new)

        return self._start("Renaming backup", project, name, backup, run)

    def delete(self, project: str, name: str, backup: str) -> Operation:
        """Start deleting a backup; raises NotFound."""
        self.get(project, name, backup)

        def run(_operation: Operation) -> None:
            with self._db.reading() as session:
                row = rows.get(session, project, name, backup)
            self.drop(row.id)
            self._tell("deleted", project, name, backup)

        return self._start("Deleting backup", project, name, backup, run)

    def drop(self, row_id: int) -> None:
        """Remove a backup's file and row, by the row's id; none is no error."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(row_id))
        with self._db.transaction() as session:
            if row := session.get(Backup, row_id):
                session.delete(row)

    # Reading back

    @contextmanager
    def incoming(self) -> Iterator[str]:
        """Give the path of a new file for a backup that comes in; it goes with the block."""
        fd, path = tempfile.mkstemp(prefix=_INCOMING, dir=self._root)
        os.close(fd)
        try:
            yield path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def take(self, project: str, path: str, *, name: str, pool: str) -> Operation:
        """Start making an instance of a backup; takes the file over, which `incoming` gave.

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

        def run(operation: Operation) -> dict[str, Any]:
            index = backup_index.parse(self._extractor.read(path, "backup/index.yaml"))
            body = self._adapted(project, index, name or index.name, pool)
            made = self._creator.adopt(project, body, lambda found: self._unpack(index, found, path), operation)
            return {"instance": made.name}

        kept = path + ".kept"
        os.rename(path, kept)
        path = kept

        def run_and_remove(operation: Operation) -> dict[str, Any]:
            try:
                return run(operation)
            finally:
                os.unlink(path)

        return self._operations.start(
            "Restoring backup",
            run_and_remove,
            project=project,
            resources={"instances": [url(project, name)]} if name else {},
        )

    def _adapted(self, project: str, index: backup_index.Index, name: str, pool: str) -> Any:
        """Return the body that creates a backup's instance here."""
        body: dict[str, Any] = {**index.config, "name": name}
        same = name == index.name
        body["config"] = {
            key: value
            for key, value in index.config.get("config", {}).items()
            if not key.startswith("volatile.") or key == "volatile.base_image" or (same and key.endswith(".hwaddr"))
        }
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

        def fill(member: str) -> Callable[[str], None]:
            def unpack(target: str) -> None:
                self._extractor.unpack([Part(path=path, member=member)], target)
                check_layout(target, "backup")

            return unpack

        size = root_size.wanted(found.expanded_devices)
        volumes.create_instance(found.pool, found.project, found.name, None, fill("backup/container"), size=size)
        for snapshot in index.snapshots:
            name = snapshot["name"]
            volumes.fill_snapshot(found.pool, found.project, found.name, name, fill(f"backup/snapshots/{name}"))
        with self._db.transaction() as session:
            owner = instances.get(session, found.project, found.name, state=None)
            session.add_all(backup_index.snapshot_row(owner.id, snapshot) for snapshot in index.snapshots)

    def _start(
        self, description: str, project: str, name: str, backup: str, run: Callable[[Operation], None]
    ) -> Operation:
        resources = {"instances": [url(project, name)], "backups": [f"/1.0/backups/{backup}"]}
        return self._operations.start(description, run, project=project, resources=resources)

    def _path(self, row_id: int) -> str:
        return f"{self._root}/{row_id}"

    def _tell(self, verb: str, project: str, name: str, backup: str) -> None:
        self._events.lifecycle(f"instance-backup-{verb}", f"/1.0/instances/{name}/backups/{backup}", project=project)


def _render(row: Backup) -> InstanceBackup:
    return {
        "name": row.name,
        "created_at": timestamp(row.created_at),
        "expires_at": timestamp(row.expires_at),
        "instance_only": row.instance_only,
        "container_only": row.instance_only,
        "optimized_storage": False,
    }
