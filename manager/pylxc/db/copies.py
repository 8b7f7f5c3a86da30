"""Copies of the SQLite database: made while it is in use, checked, kept, and put in its place."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import sqlite3
from collections.abc import Iterator

from pylxc.errors import BadRequest, DatabaseUnusable, PylxcError, from_os

KEPT = 8
"""Copies that are kept of those that are made by themselves."""

_NAME = re.compile(r"\d{8}T\d{6}Z-[\w-]+\.db")
PART = ".part"
"""How a copy is called that is not whole yet."""

_SIDES = ("-wal", "-shm", "-journal")
"""What SQLite has beside a database, by the database's own name."""


def directory(path: str) -> str:
    """Return where copies of the database at `path` lie that are made by themselves."""
    return f"{os.path.dirname(path)}/backups"


def listed(path: str) -> list[str]:
    """Return the paths of these copies, the newest first."""
    try:
        names = [name for name in os.listdir(directory(path)) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    return [f"{directory(path)}/{name}" for name in sorted(names, reverse=True)]


def copy(path: str, target: str) -> None:
    """Copy a database, its write-ahead log included, to a new file that is whole when it appears; root's alone.

    Raises:
        sqlite3.DatabaseError: `path` is no database, or is damaged.
        OSError: the target cannot be written.
    """
    draft = f"{target}{PART}"
    remove(draft)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(draft)) as made:
            source.backup(made)
            made.execute("PRAGMA journal_mode=DELETE")  # one file is all of it
        _sync(draft)
        os.rename(draft, target)
    finally:
        remove(draft)


def keep(path: str, reason: str) -> str:
    """Make a copy of the database at `path` and return where; all but the newest of those made here are removed.

    Args:
        path: of the database.
        reason: a word for its name, such as the revision.
    """
    os.makedirs(directory(path), mode=0o700, exist_ok=True)
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    target = f"{directory(path)}/{stamp}-{reason}.db"
    copy(path, target)
    for old in listed(path)[KEPT:]:
        os.unlink(old)
    return target


def verify(path: str) -> None:
    """Check every page and row of a database; raises sqlite3.DatabaseError."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        _require_ok(connection.execute("PRAGMA integrity_check(1)").fetchone())
        if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise sqlite3.DatabaseError("rows refer to rows that are not there")


def quick_check(connection: sqlite3.Connection) -> None:
    """Check that every page of a database can be read; raises sqlite3.DatabaseError."""
    _require_ok(connection.execute("PRAGMA quick_check(1)").fetchone())


def _require_ok(row: tuple[str, ...] | None) -> None:
    if row != ("ok",):
        raise sqlite3.DatabaseError("it fails its integrity check")


def replace(path: str, new: str) -> str:
    """Put the database `new`, which nobody has open, in the place of the one at `path`.

    Returns:
        Where the former one is now, "" when there was none.

    The former one keeps its log under its new name, and is not read: it may be damaged. Should this be cut off, it is
    in both places.
    """
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    former = f"{path}.{stamp}.replaced"
    remove(former)
    for side in ("", *_SIDES):
        with contextlib.suppress(FileNotFoundError):
            os.link(f"{path}{side}", f"{former}{side}")
    for side in _SIDES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{side}")
    os.rename(new, path)
    _sync(os.path.dirname(path))
    return former if os.path.exists(former) else ""


def remove(path: str) -> None:
    """Remove a database with what is beside it; none is no error."""
    for side in ("", *_SIDES):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{side}")


def way_out(path: str) -> str:
    """Return what to do about a database at `path` that cannot be used."""
    found = listed(path)
    if found:
        return f"pylxc admin restore {found[0]}; older backups lie beside it"
    return "pylxc admin restore FILE if there is a backup; else move it away, start again, and pylxc admin recover"


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what SQLite and the system say about the file `what` into one line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise BadRequest(f"{what!r} cannot be used as a database: {error}") from error
    except PylxcError as error:
        if isinstance(error, DatabaseUnusable):
            raise BadRequest(error.message) from error
        raise
    except OSError as error:
        raise from_os(error) from error


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
