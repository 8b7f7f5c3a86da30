"""Pools that are a directory of any file system; copies share their data where the file system has reflinks.

A volume is made in `.staging` and renamed into place once it is whole; it is renamed into `.trash` before it is
deleted. What lies in either after a crash is nobody's. Renaming is all that anybody can ever see of a change.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping

from pylxc.drivers.storage import tree
from pylxc.drivers.storage.driver import Info, Resources
from pylxc.errors import BadRequest, Unavailable
from pylxc.kernel import inode

_KINDS = ("containers", "containers-snapshots", "custom", "custom-snapshots", "images")
_STAGING = ".staging"
_TRASH = ".trash"
_SHARDS = 32


class DirDriver:
    """A pool that is a directory; see `StorageDriver`. Its volumes are root's alone: no user of the host gets into one.

    With `source` set the pool's place below storage-pools/ is a symbolic link to that directory.
    """

    info = Info(name="dir", version="1")

    def __init__(self, path: str, config: Mapping[str, str]) -> None:
        self._path = path
        self._source = config.get("source", "")
        self._next_shard = secrets.randbelow(_SHARDS)
        self._lock = threading.Lock()

    def create(self) -> None:
        """See `StorageDriver`."""
        if self._is_elsewhere:
            self._check_source()
        try:
            if self._is_elsewhere:
                os.symlink(self._source, self._path)
            else:
                os.mkdir(self._path, 0o711)
        except OSError as error:
            raise tree.failure(error, "creating the storage pool") from error
        try:
            os.chmod(self._path, 0o711)  # noqa: S103 - to pass through only
            self._make_directories()
        except OSError as error:
            self.delete()
            raise tree.failure(error, "creating the storage pool") from error

    def _check_source(self) -> None:
        if not os.path.isabs(self._source):
            raise BadRequest(f"Invalid source {self._source!r}: an absolute path is needed")
        try:
            if os.listdir(self._source):
                raise BadRequest(f"Source path {self._source!r} isn't empty")
        except (FileNotFoundError, NotADirectoryError):
            raise BadRequest(f"Source path {self._source!r} is no directory") from None

    def _make_directories(self) -> None:
        for name in (*_KINDS, _STAGING, _TRASH):
            os.makedirs(f"{self._path}/{name}", mode=0o700 if name in (_STAGING, _TRASH) else 0o711, exist_ok=True)
        # ext4 puts the files of a directory near it, and passes one by one over the inodes that were freed there in
        # the last minutes: launching after deleting took 5 s in place of 0.6 s where both happened in one directory.
        # TOPDIR spreads these directories over the disk; volumes are made in them in turn.
        with contextlib.suppress(OSError):
            inode.add_flags(f"{self._path}/{_STAGING}", inode.TOPDIR)
        for shard in range(_SHARDS):
            os.makedirs(f"{self._path}/{_STAGING}/{shard:02}", mode=0o700, exist_ok=True)

    @property
    def _is_elsewhere(self) -> bool:
        return self._source not in ("", self._path)

    def delete(self) -> None:
        """See `StorageDriver`."""
        if not os.path.islink(self._path):
            tree.delete(self._path)
            return
        for name in (*_KINDS, _STAGING, _TRASH):
            tree.delete(f"{self._path}/{name}")
        os.unlink(self._path)

    def open(self) -> None:
        """See `StorageDriver`."""
        if not os.path.isdir(self._path):
            raise Unavailable(f"Storage pool directory {self._path!r} is missing")
        try:
            self._make_directories()
            for shard in os.listdir(f"{self._path}/{_STAGING}"):
                for name in os.listdir(f"{self._path}/{_STAGING}/{shard}"):
                    os.rename(f"{self._path}/{_STAGING}/{shard}/{name}", self._new_trash())
        except OSError as error:
            raise Unavailable(f"Storage pool directory {self._path!r}: {error.strerror}") from error

    def path(self, volume: str) -> str:
        """See `StorageDriver`."""
        return f"{self._path}/{volume}"

    def create_volume(self, volume: str, fill: Callable[[str], None] | None = None) -> None:
        """See `StorageDriver`."""
        with self._staged(volume) as directory:
            if fill:
                fill(directory)

    def clone_volume(self, source: str, volume: str) -> None:
        """See `StorageDriver`."""
        with self._staged(volume) as directory:
            tree.copy_contents(self.path(source), directory)

    @contextlib.contextmanager
    def _staged(self, volume: str) -> Iterator[str]:
        """Give a new directory that becomes the volume when the block ends well, and is gone when it does not."""
        with self._lock:
            self._next_shard = (self._next_shard + 1) % _SHARDS
            shard = self._next_shard
        directory = f"{self._path}/{_STAGING}/{shard:02}/{secrets.token_hex(8)}"
        try:
            os.mkdir(directory, 0o700)
            yield directory
            os.chmod(directory, 0o700)
            os.rename(directory, self.path(volume))
        except BaseException as error:
            tree.delete(directory)
            if isinstance(error, OSError):
                raise tree.failure(error, "creating the volume") from error
            raise

    def delete_volume(self, volume: str) -> None:
        """See `StorageDriver`."""
        try:
            os.rename(self.path(volume), self._new_trash())
        except FileNotFoundError:
            return
        except OSError as error:
            raise tree.failure(error, "deleting the volume") from error

    def _new_trash(self) -> str:
        return f"{self._path}/{_TRASH}/{secrets.token_hex(8)}"

    def sweep(self) -> None:
        """See `StorageDriver`."""
        try:
            names = os.listdir(f"{self._path}/{_TRASH}")
        except FileNotFoundError:
            return  # the pool is gone, or away
        for name in names:
            tree.delete(f"{self._path}/{_TRASH}/{name}")

    def rename_volume(self, volume: str, new: str) -> None:
        """See `StorageDriver`."""
        try:
            os.rename(self.path(volume), self.path(new))
        except FileNotFoundError as error:
            if not os.path.isdir(self.path(new)):
                raise tree.failure(error, "renaming the volume") from error
        except OSError as error:
            raise tree.failure(error, "renaming the volume") from error

    def usage(self, volume: str) -> int | None:
        """See `StorageDriver`."""
        del volume
        return None

    def resources(self) -> Resources:
        """See `StorageDriver`."""
        try:
            info = os.statvfs(self._path)
        except OSError as error:
            raise Unavailable(f"Storage pool directory {self._path!r}: {error.strerror}") from error
        return Resources(
            space_used=(info.f_blocks - info.f_bfree) * info.f_frsize,
            space_total=info.f_blocks * info.f_frsize,
            inodes_used=info.f_files - info.f_ffree,
            inodes_total=info.f_files,
        )
