"""Backups of whatever has them: written to a file of the server or straight to a client, changed, brought back."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pylxc import validate
from pylxc.db import backups as rows
from pylxc.db.models import Backup
from pylxc.errors import Conflict
from pylxc.meter import Meter
from pylxc.revert import Reverter
from pylxc.services.backups.store import BackupStore
from pylxc.services.backups.writer import BackupOptions, BackupWriter, OnProgress, Write
from pylxc.services.events import EventBus
from pylxc.services.images.importing import expiry
from pylxc.services.images.store import explain
from pylxc.services.operations import Operation, Operations
from pylxc.services.projects import admission
from pylxc.services.server import Server
from pylxc.services.storage.service import StoragePools
from pylxc.wire import backups as wire
from pylxc.wire.times import timestamp

Rendered = list[wire.Backup]
Urls = list[str]
Resources = dict[str, list[str]]  # inside the class `list` is its method


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What backups are of.

    Attributes:
        owner: its row.
        project: its project.
        pool: its storage pool.
        name: its own.
        url: its path, without a query.
        resources: what an operation on it names.
        write: writes a backup of it: takes the options, what takes the bytes, and what is told their number.
    """

    owner: rows.Owner
    project: str
    pool: str
    name: str
    url: str
    resources: Resources
    write: Callable[[BackupOptions, Write, OnProgress], None]


class Backups(ABC):
    """Backups of one kind of thing; thread-safe. `names` are the project and what names a thing in it.

    Attributes:
        store: the files of all backups.
    """

    NOUN: ClassVar[str]
    """What it is that has backups."""

    def __init__(
        self, store: BackupStore, storage: StoragePools, operations: Operations, events: EventBus, server: Server
    ) -> None:
        self.store = store
        self._storage = storage
        self._writer = BackupWriter(store, storage)
        self._db = store.db
        self._operations = operations
        self._events = events
        self._server = server

    @abstractmethod
    def subject(self, *names: str) -> Subject:
        """Return what backups are asked for of; raises NotFound."""

    @abstractmethod
    def _render(self, row: Backup) -> wire.Backup:
        """Return a backup as the wire has it."""

    # Reading

    def list(self, *names: str) -> Rendered:
        """Return the backups of a thing, oldest first; raises NotFound."""
        owner = self.subject(*names).owner
        with self._db.reading() as session:
            return [self._render(row) for row in rows.of(session, owner)]

    def urls(self, *names: str) -> Urls:
        """Return the URLs of the backups of a thing, oldest first; raises NotFound."""
        subject = self.subject(*names)
        with self._db.reading() as session:
            return [_url(subject, row.name) for row in rows.of(session, subject.owner)]

    def get(self, names: tuple[str, ...], backup: str) -> wire.Backup:
        """Return a backup; raises NotFound."""
        return self._render(self._row(self.subject(*names), backup))

    def file(self, names: tuple[str, ...], backup: str) -> str:
        """Return the path of a backup's file; raises NotFound."""
        subject = self.subject(*names)
        row = self._row(subject, backup)
        self._tell("retrieved", subject, backup)
        return self.store.path(row.id)

    def _row(self, subject: Subject, backup: str) -> Backup:
        with self._db.reading() as session:
            return rows.get(session, subject.owner, backup)

    # Making

    def options(self, project: str, subject: Subject, body: wire.BackupsPost) -> BackupOptions:
        """Return how a request wants a backup to be made in a project.

        Raises:
            BadRequest: an unknown compression.
            Forbidden: the project allows no backups.
        """
        with self._db.reading() as session:
            admission.refuse_backups(session, project)
        compression = body.get("compression_algorithm")
        compression = compression or self._server.value_for(project, "backups.compression_algorithm")
        alone = body.get("instance_only") or body.get("container_only") or body.get("volume_only") or False
        validate.compression(compression)
        # Where the driver has no form of its own the backup is as always, as with LXD.
        optimized = body.get("optimized_storage", False) and self._storage.trees.has_streams(subject.pool)
        return BackupOptions(alone=alone, compression=compression, optimized=optimized)

    def create(self, names: tuple[str, ...], body: wire.BackupsPost) -> Operation:
        """Start writing a backup; what it is of may be in use meanwhile.

        Raises:
            NotFound: there is no such thing.
            BadRequest: a malformed name or time, or an unknown compression.
            Conflict: the name is taken.
            Forbidden: see `options`.
        """
        subject = self.subject(*names)
        options = self.options(names[0], subject, body)
        expires_at = expiry(body.get("expires_at"))
        with self._db.reading() as session:
            taken = rows.claimed(session, subject.owner)
        backup = body.get("name") or next(f"backup{n}" for n in range(len(taken) + 1) if f"backup{n}" not in taken)
        validate.snapshot_name(backup)
        if backup in taken:
            raise _taken(subject, backup)

        def run(operation: Operation) -> None:
            row = subject.owner.new(backup)
            row.alone, row.optimized, row.expires_at = options.alone, options.optimized, expires_at
            with self._db.transaction() as session:
                if backup in rows.claimed(session, subject.owner):
                    raise _taken(subject, backup)
                session.add(row)
            with Reverter() as revert:
                revert.add(self.store.drop, row.id)
                self._write_file(subject, options, self.store.new_path(row.id), operation)
                with self._db.transaction() as session:
                    session.get_one(Backup, row.id).state = "created"
                revert.success()
            self._tell("created", subject, backup)

        return self._start("Backing up", subject, backup, run, cancellable=True)

    def _write_file(self, subject: Subject, options: BackupOptions, path: str, operation: Operation) -> None:
        meter = Meter(operation.progress, "", key="create_backup_progress")

        def on_progress(size: int) -> None:
            operation.check_cancelled()
            meter.add(size)

        try:
            with open(path, "xb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o600)
                subject.write(options, file.write, on_progress)
                os.fsync(file.fileno())
        except OSError as error:
            raise explain(error, "Failed writing the backup") from error

    # Changing

    def rename(self, names: tuple[str, ...], backup: str, new: str) -> Operation:
        """Start renaming a backup.

        Raises:
            NotFound: there is none.
            BadRequest: the new name is none.
            Conflict: the new name is taken.
        """
        subject = self.subject(*names)
        validate.snapshot_name(new)
        self._row(subject, backup)
        with self._db.reading() as session:
            if new in rows.claimed(session, subject.owner):
                raise _taken(subject, new)

        def run(_operation: Operation) -> None:
            with self._db.transaction() as session:
                if new in rows.claimed(session, subject.owner):
                    raise _taken(subject, new)
                rows.get(session, subject.owner, backup).name = new
            self._tell("renamed", subject, new, {"old_name": backup})

        return self._start("Renaming backup of", subject, backup, run)

    def delete(self, names: tuple[str, ...], backup: str) -> Operation:
        """Start deleting a backup; raises NotFound."""
        subject = self.subject(*names)
        self._row(subject, backup)

        def run(_operation: Operation) -> None:
            self.store.drop(self._row(subject, backup).id)
            self._tell("deleted", subject, backup)

        return self._start("Deleting backup of", subject, backup, run)

    def _start(
        self,
        doing: str,
        subject: Subject,
        backup: str,
        run: Callable[[Operation], None],
        *,
        cancellable: bool = False,
    ) -> Operation:
        return self._operations.start(
            f"{doing} {self.NOUN}",
            run,
            project=subject.project,
            resources={**subject.resources, "backups": [f"/1.0/backups/{backup}"]},
            cancellable=cancellable,
        )

    def _tell(self, verb: str, subject: Subject, backup: str, context: dict[str, str] | None = None) -> None:
        kind = self.NOUN.replace(" ", "-")
        self._events.lifecycle(f"{kind}-backup-{verb}", _url(subject, backup), project=subject.project, context=context)

    # Reading back

    def _restore(
        self, project: str, path: str, resources: Resources, run: Callable[[str, Operation], Any]
    ) -> Operation:
        """Start making something of a backup, a file that `BackupStore.incoming` gave, and remove the file.

        Args:
            project: the operation's.
            path: the file, which is taken over.
            resources: what the operation names.
            run: takes the file's path.
        """
        path = self.store.keep(path)

        def run_and_remove(operation: Operation) -> Any:
            with self.store.kept(path):
                return run(path, operation)

        return self._operations.start("Restoring backup", run_and_remove, project=project, resources=resources)


def fields(row: Backup) -> wire.Backup:
    """Return what the wire has of any backup."""
    return {
        "name": row.name,
        "created_at": timestamp(row.created_at),
        "expires_at": timestamp(row.expires_at),
        "optimized_storage": row.optimized,
    }


def _url(subject: Subject, backup: str) -> str:
    return f"{subject.url}/backups/{backup}"


def _taken(subject: Subject, backup: str) -> Conflict:
    return Conflict(f'Backup "{subject.name}/{backup}" already exists')
