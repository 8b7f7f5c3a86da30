"""The files of backups: a backup is a file called by its row's id, so that renaming anything moves no file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pylxc.db import backups as rows
from pylxc.db.engine import Database
from pylxc.db.models import Backup, Clock
from pylxc.paths import Paths

_INCOMING = ".incoming-"


class BackupStore:
    """The rows and files of all backups; thread-safe."""

    def __init__(self, db: Database, paths: Paths, clock: Clock) -> None:
        self.db = db
        self._root = paths.backups
        self._clock = clock

    def reconcile(self) -> None:
        """Remove what a dead daemon left half made; call once at start."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        os.chmod(self._root, 0o700)
        with self.db.transaction() as session:
            for row in rows.every(session):
                if row.state != "created" or not os.path.exists(self.path(row.id)):
                    session.delete(row)
        for entry in list(os.scandir(self._root)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name.startswith(_INCOMING):
                os.unlink(entry.path)
        self.upkeep()

    def upkeep(self) -> None:
        """Remove the backups whose time is over, and the files of those that went with what they were of."""
        with self.db.reading() as session:
            old = [row.id for row in rows.expired(session, self._clock())]
        for row_id in old:
            self.drop(row_id)
        names = [name for name in os.listdir(self._root) if name.isdigit()]  # before the rows: a file has one first
        with self.db.reading() as session:
            known = {str(row.id) for row in rows.every(session)}
        for name in set(names) - known:
            self._unlink(f"{self._root}/{name}")

    def path(self, row_id: int) -> str:
        """Return where a backup's file is, by its row's id."""
        return f"{self._root}/{row_id}"

    def new_path(self, row_id: int) -> str:
        """Return where a new backup's file is to be.

        Ids are used again: what `upkeep` has not yet removed of a backup that went with its instance makes room.
        """
        self._unlink(self.path(row_id))
        return self.path(row_id)

    def drop(self, row_id: int) -> None:
        """Remove a backup's file and row, by the row's id; none is no error."""
        self._unlink(self.path(row_id))
        with self.db.transaction() as session:
            if row := session.get(Backup, row_id):
                session.delete(row)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Give a directory for what goes into a backup; it goes with the block."""
        with tempfile.TemporaryDirectory(prefix=_INCOMING, dir=self._root) as directory:
            yield directory

    @contextmanager
    def incoming(self) -> Iterator[str]:
        """Give the path of a new file for a backup that comes in; it goes with the block unless it is kept."""
        fd, path = tempfile.mkstemp(prefix=_INCOMING, dir=self._root)
        os.close(fd)
        try:
            yield path
        finally:
            self._unlink(path)

    @contextmanager
    def kept(self, path: str) -> Iterator[None]:
        """Remove a file of `keep` with the end of the block."""
        try:
            yield
        finally:
            self._unlink(path)

    def keep(self, path: str) -> str:
        """Take a file over that `incoming` gave, and return its new path."""
        kept = path + ".kept"
        os.rename(path, kept)
        return kept

    def _unlink(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)
