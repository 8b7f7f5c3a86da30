"""Bring the database to the schema of this version: Alembic, imported only when there is something to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from pylxc.db import copies, room
from pylxc.db.engine import Database
from pylxc.errors import DatabaseUnusable
from pylxc.resources import resource_dir

HEAD = "0013"
"""The newest revision in migrations/versions; a test holds the two together."""


def open_database(path: str) -> Database:
    """Open the SQLite database at `path`, made or migrated to `HEAD` when it has to be.

    A database of an older version is copied first, see `copies.keep`; the migration is one transaction.

    Raises:
        DatabaseUnusable: the file is damaged, written by a newer pylxc, or gone although there are copies of it.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    room.release(path)
    stored = stored_revision(path)
    if stored is None and copies.listed(path):
        raise DatabaseUnusable(
            f"The database {path} is gone or empty, and there are backups of it",
            hint=f"{copies.way_out(path)}; to begin anew, move {copies.directory(path)} away",
        )
    database = Database(f"sqlite:///{path}")
    if stored != HEAD:
        try:
            if stored is not None:
                require_known(path, stored)
                copies.keep(path, stored)
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
        DatabaseUnusable: it is no database, is damaged, or holds the tables of something else.
    """
    if not os.path.exists(path):
        return None
    try:
        return read_revision(path)
    except sqlite3.DatabaseError as error:
        raise DatabaseUnusable(f"The database {path} cannot be used: {error}", hint=copies.way_out(path)) from error


def read_revision(path: str) -> str | None:
    """Return the revision of the database at `path`, None when it is empty; raises sqlite3.DatabaseError."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        copies.quick_check(connection)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise sqlite3.DatabaseError("it holds other tables than pylxc's")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def require_known(path: str, revision: str) -> None:
    """Raise DatabaseUnusable when a newer pylxc has written the database at `path`."""
    if revision not in known_revisions():
        raise DatabaseUnusable(
            f"The database {path} is of revision {revision!r}, which this pylxc does not know",
            hint="it was written by a newer version: install that one",
        )


def known_revisions() -> set[str]:
    """Return the revisions that migrations/versions holds."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(resource_dir("migrations"))).walk_revisions()}


def upgrade(database: Database) -> None:
    """Migrate to the newest revision in one transaction: a failure leaves the schema as it was."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resource_dir("migrations")).replace("%", "%%"))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
