"""Pools that are a directory of any file system; copies share their data where the file system has reflinks."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Mapping

from pylxc.drivers.storage import projects, tree
from pylxc.drivers.storage.base import KINDS, STAGING, TRASH, DirectoryPool
from pylxc.drivers.storage.driver import Info
from pylxc.errors import NotSupported
from pylxc.kernel import inode
from pylxc.revert import Reverter

_SHARDS = 32


class DirDriver(DirectoryPool):
    """A pool that is a directory; see `StorageDriver`.

    With `source` set the pool's place below storage-pools/ is a symbolic link to that directory.
    """

    info = Info(name="dir", version="1")

    def __init__(self, path: str, config: Mapping[str, str]) -> None:
        super().__init__(path, config)
        self._next_shard = secrets.randbelow(_SHARDS)
        self._lock = threading.Lock()

    def create(self) -> dict[str, str]:
        """See `StorageDriver`."""
        try:
            if self._is_elsewhere:
                self._make_link()
            else:
                os.mkdir(self._path, 0o711)
                os.chmod(self._path, 0o711)  # noqa: S103 - to pass through only
            self._make_directories()
        except OSError as error:
            self.delete()
            raise tree.failure(error, "creating the storage pool") from error
        return {}

    def delete(self) -> None:
        """See `StorageDriver`."""
        if not os.path.islink(self._path):
            tree.delete(self._path)
            return
        for name in (*KINDS, STAGING, TRASH):
            tree.delete(f"{self._path}/{name}")
        os.unlink(self._path)

    def adopt(self, revert: Reverter) -> dict[str, str]:
        """See `StorageDriver`."""
        if self._is_elsewhere:
            self._find_link(revert)
        self._require_pool()
        return {}

    def open(self) -> None:
        """See `StorageDriver`."""
        self._reopen()

    def _make_directories(self) -> None:
        super()._make_directories()
        # ext4 puts the files of a directory near it, and passes one by one over the inodes that were freed there in
        # the last minutes: launching after deleting took 5 s in place of 0.6 s where both happened in one directory.
        # TOPDIR spreads these directories over the disk; volumes are made in them in turn.
        with contextlib.suppress(OSError):
            inode.add_flags(f"{self._path}/{STAGING}", inode.TOPDIR)
        for shard in range(_SHARDS):
            os.makedirs(f"{self._path}/{STAGING}/{shard:02}", mode=0o700, exist_ok=True)

    def _new_staging(self) -> str:
        with self._lock:
            self._next_shard = (self._next_shard + 1) % _SHARDS
            shard = self._next_shard
        return f"{self._path}/{STAGING}/{shard:02}/{secrets.token_hex(8)}"

    def _all_staged(self) -> list[str]:
        return [f"{shard}/{name}" for shard in super()._all_staged() for name in os.listdir(shard)]

    def _make(self, directory: str) -> None:
        os.mkdir(directory, 0o700)
        if projects.are_accounted(self._path):
            projects.assign(directory)

    def _copy(self, source: str, directory: str) -> None:
        self._make(directory)
        tree.copy_contents(source, directory)

    def _refresh(self, source: str, former: str, directory: str) -> None:
        os.mkdir(directory, 0o700)
        with projects.joined(former, directory):
            tree.synchronise(source, directory, f"--link-dest={former}")

    def _take_place(self, directory: str, volume: str) -> None:
        self.flush()
        super()._take_place(directory, volume)

    def _keep_limit(self, former: str, new: str) -> None:
        if projects.are_same(former, new):
            projects.leave(former)  # whose removal would lift the limit
        else:
            super()._keep_limit(former, new)

    def _remove(self, directory: str) -> None:
        with contextlib.suppress(OSError):  # nothing there, or a file system that has become read-only
            if self._limit(directory):
                projects.set_limit(directory, 0)
        tree.delete(directory)

    # Their sizes

    def require_sizes(self) -> None:
        """See `StorageDriver`."""
        if not projects.are_enforced(self._path):
            raise NotSupported(
                f"Storage pool {os.path.basename(self._path)!r} cannot limit the size of volumes",
                hint="use a btrfs pool, or put it on ext4 or xfs that is mounted with prjquota",
            )

    def _account(self, directory: str) -> None:
        projects.assign_tree(directory)

    def _limit(self, directory: str) -> int:
        found = projects.account(directory)
        return found.limit if found else 0

    def _set_limit(self, directory: str, size: int) -> None:
        projects.set_limit(directory, size)

    def _usage(self, directory: str, *, exact: bool = False) -> int | None:
        del exact  # it always is
        found = projects.account(directory)
        return found.used if found else None
