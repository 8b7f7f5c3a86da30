"""Room on the disk for the database's journal: a full disk must not keep anybody from deleting.

SQLite writes its write-ahead log from the beginning again after each checkpoint, which comes at 1000 pages, and never
makes it smaller while it is open. As large as that from the start, it takes no more room for what is committed. A file
is kept beside it that a daemon which starts on a full disk gives up for that, and for the rest that is made at a start.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

log = logging.getLogger(__name__)

_LOG_BYTES = 5 << 20
_SPARE_BYTES = 6 << 20


def release(path: str) -> None:
    """Give up what is kept for the SQLite database at `path`."""
    with suppress(FileNotFoundError):
        os.unlink(_spare(path))


def take(path: str) -> None:
    """Keep room for the database at `path`, which is open; when there is none, it goes without."""
    try:
        # Not the log's index: SQLite has locks on it, which this process would lose by closing a descriptor of it.
        for file, size in ((f"{path}-wal", _LOG_BYTES), (_spare(path), _SPARE_BYTES)):
            _allocate(file, size)
    except OSError as error:
        release(path)
        log.warning("Cannot keep room on the disk for the database: %s", error.strerror)


def _allocate(path: str, size: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def _spare(path: str) -> str:
    return f"{path}.spare"
