"""The database: one engine, transactions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from pylxc.db import room
from pylxc.errors import Internal

_CHANGED = "pylxc_changed"


class Database:
    """A SQLAlchemy database; thread-safe. Objects stay readable after their transaction has ended.

    Args:
        url: any SQLAlchemy URL; SQLite gets WAL, synchronous=FULL, foreign keys and IMMEDIATE write transactions.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # As many connections as are wanted: who writes reads beside that, and must not wait for one that is held by
        # somebody who waits for the writing to end.
        self.engine = create_engine(url, max_overflow=-1)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_immediate)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def watch(self, changed: Callable[[Collection[object]], None]) -> None:
        """Have `changed` called after each transaction with the rows that it made, changed or removed.

        It must return soon and raise nothing. Statements (`update`, `delete`) are seen only where they call `note`.
        """

        def tell(session: Session) -> None:
            if rows := session.info.pop(_CHANGED, None):
                changed(rows)

        event.listen(
            self._sessions,
            "after_flush",
            lambda session, _context: note(session, *session.new, *session.dirty, *session.deleted),
        )
        event.listen(self._sessions, "after_commit", tell)

    @contextmanager
    def transaction(self, *, outlives_host: bool = True) -> Iterator[Session]:
        """Yield a session: commit when the block ends, roll back when it raises. Keep it short, do no I/O in it.

        Args:
            outlives_host: be on the disk at the end; without it, the next such transaction takes care of that. The end
                of the daemon loses nothing either way, but what is void after the end of the host need not wait.

        Raises:
            Internal: the database cannot be written: the disk is full, or somebody else holds it.
        """
        try:
            with self._sessions.begin() as session:
                session.connection(execution_options={"pylxc_relaxed": not outlives_host})
                yield session
        except OperationalError as error:
            if self.engine.url.database and "full" in str(error.orig):
                room.release(self.engine.url.database)  # for the next one: somebody may want to delete something
            raise Internal(f"The database failed: {error.orig}") from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that reads one consistent state and never waits for writers."""
        with self._sessions() as session:
            session.connection(execution_options={"pylxc_read_only": True})
            yield session

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def note(session: Session, *rows: object) -> None:
    """Have `Database.watch` tell of rows that a transaction has changed."""
    session.info.setdefault(_CHANGED, []).extend(rows)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own; _begin_immediate does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=20000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Any) -> None:
    # A deferred transaction that turns from reading to writing fails with SQLITE_BUSY at once when another wrote.
    options = connection.get_execution_options()
    reading = options.get("pylxc_read_only")
    synchronous = "NORMAL" if options.get("pylxc_relaxed") else "FULL"
    if not reading and connection.info.get("synchronous", "FULL") != synchronous:
        connection.exec_driver_sql(f"PRAGMA synchronous={synchronous}")
        connection.info["synchronous"] = synchronous
    connection.exec_driver_sql("BEGIN DEFERRED" if reading else "BEGIN IMMEDIATE")
