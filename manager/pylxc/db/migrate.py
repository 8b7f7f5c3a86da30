"""Bring the database to the schema of this version: Alembic, imported only when there is something to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from pylxc.db import room
from pylxc.db.engine import Database
from pylxc.errors import Unavailable
from pylxc.resources import resource_dir

HEAD = "0009"
"""The newest revision in migrations/versions; a test holds the two together."""


def open_database(path: str) -> Database:
    """Open the SQLite database at `path`, made or migrated to `HEAD` when it has to be.

    A database of an older version is copied to `<path>.<revision>.bak` before it is migrated; the migration is one
    transaction.

    Raises:
        Unavailable: the file is damaged, or written by a newer pylxc.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    room.release(path)
    stored = stored_revision(path)
    database = Database(f"sqlite:///{path}")
    if stored != HEAD:
        try:
            if stored is not None:
                if stored not in known_revisions():
                    raise Unavailable(
                        f"The database {path} is of revision {stored!r}, which this pylxc does not know",
                        hint="it was written by a newer version: install that one",
                    )
                back_up(path, f"{path}.{stored}.bak")
            upgrade(database)
        except BaseException:
            database.close()
            raise
        os.chmod(path, 0o600)
    with database.reading():
        room.take(path)  # the log's index is there as well by now
    return database


def stored_revision(path: str) -> str | None:
    """Return the revision of the database at `path`, None when it is missing or empty.

    Raises:
        Unavailable: it is no database, is damaged, or holds the tables of something else.
    """
    if not os.path.exists(path):
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("it fails its integrity check")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return None
            if "alembic_version" not in tables:
                raise sqlite3.DatabaseError("it holds other tables than pylxc's")
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise Unavailable(
            f"The database {path} cannot be used: {error}", hint="put a backup in its place, or move it away"
        ) from error
    return None if row is None else str(row[0])


def known_revisions() -> set[str]:
    """Return the revisions that migrations/versions holds."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(resource_dir("migrations"))).walk_revisions()}


def back_up(path: str, target: str) -> None:
    """Copy the database at `path`, its write-ahead log included, to `target`."""
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    os.chmod(target, 0o600)


def upgrade(database: Database) -> None:
    """Migrate to the newest revision in one transaction: a failure leaves the schema as it was."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resource_dir("migrations")).replace("%", "%%"))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
