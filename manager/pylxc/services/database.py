"""Backups of the database, and going back to one."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import BinaryIO

from sqlalchemy import inspect, select

from pylxc.db import copies, migrate
from pylxc.db.engine import Database
from pylxc.db.models import Base, Instance
from pylxc.errors import BadRequest, NotFound
from pylxc.paths import Paths, storage_name
from pylxc.services.instances import attached
from pylxc.services.instances.expand import POWER, is_of_run

DAILY = "daily"
_OUTGOING = ".outgoing-"


class DatabaseBackups:
    """Copies of the database that is in use; thread-safe."""

    def __init__(self, paths: Paths) -> None:
        self._path = paths.database
        with suppress(FileNotFoundError):
            for name in os.listdir(copies.directory(self._path)):  # what a daemon left that was killed
                if name.startswith(_OUTGOING) or name.endswith(copies.PART):
                    os.unlink(f"{copies.directory(self._path)}/{name}")

    def daily(self) -> None:
        """Keep a copy beside the database."""
        copies.keep(self._path, DAILY)

    def snapshot(self) -> BinaryIO:
        """Return a file, without a name, that holds the database as it is now."""
        os.makedirs(copies.directory(self._path), mode=0o700, exist_ok=True)
        target = f"{copies.directory(self._path)}/{_OUTGOING}{os.urandom(8).hex()}"
        copies.copy(self._path, target)
        file = open(target, "rb")  # noqa: SIM115 - the caller's
        os.unlink(target)
        return file


def restore(paths: Paths, source: str) -> str:
    """Replace the database by a backup of it, and return where the former one is now, "" when there was none.

    No daemon runs, nor can start meanwhile. What containers have that run now is taken from their own directories: the
    backup knows another day's.

    Raises:
        NotFound: there is no such file.
        BadRequest: it is no database of pylxc's, is damaged, or of a newer version. Nothing is replaced.
    """
    if not os.path.isfile(source):
        raise NotFound(f"There is no file {source!r}")
    os.makedirs(os.path.dirname(paths.database), mode=0o700, exist_ok=True)
    staged = f"{paths.database}.restoring"
    copies.remove(staged)
    try:
        with copies.explained(source):
            copies.copy(source, staged)
            _check(staged, source)
        database = Database(f"sqlite:///{staged}")
        try:
            migrate.upgrade(database)
            _check_schema(database, source)
            _take_what_runs(database, paths)
        finally:
            database.close()
        with copies.explained(source):
            return copies.replace(paths.database, staged)
    finally:
        copies.remove(staged)


def _check(staged: str, source: str) -> None:
    copies.verify(staged)
    revision = migrate.read_revision(staged)
    if revision is None:
        raise BadRequest(f"{source!r} is no database of pylxc's: it is empty")
    migrate.require_known(source, revision)


def _check_schema(database: Database, source: str) -> None:
    found = inspect(database.engine)
    tables = set(found.get_table_names())
    for table in Base.metadata.sorted_tables:
        columns = {column["name"] for column in found.get_columns(table.name)} if table.name in tables else set()
        if missing := {column.name for column in table.columns} - columns:
            raise BadRequest(f"{source!r} is no database of pylxc's: table {table.name!r} lacks {sorted(missing)}")


def _take_what_runs(database: Database, paths: Paths) -> None:
    with database.transaction() as session:
        for row in session.scalars(select(Instance)):
            has = attached.saved(paths.instance_run(storage_name(row.project.name, row.name)))
            config = {key: value for key, value in row.config.items() if not is_of_run(key)}
            if has is not None:
                run = attached.volatile(has.values())
                config |= {key: value for key, value in run.items() if is_of_run(key)} | {POWER: "RUNNING"}
            row.config, row.attached = config, attached.to_json(has or {})
