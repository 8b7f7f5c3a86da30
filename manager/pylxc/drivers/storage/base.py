"""What pools have in common whose volumes are directories of one mounted file system.

A volume is made in `.staging` and renamed into place once it is whole; it is renamed into `.trash` before it is
deleted. What lies in either after a crash is nobody's. Renaming is all that anybody can ever see of a change.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from pylxc import units
from pylxc.drivers.storage import tree
from pylxc.drivers.storage.driver import Info, Resources, Sink
from pylxc.errors import BadRequest, NotSupported, PylxcError, Unavailable
from pylxc.kernel import rename
from pylxc.kernel.syncfs import syncfs
from pylxc.revert import Reverter

KINDS = ("containers", "containers-snapshots", "custom", "custom-snapshots", "images")
STAGING = ".staging"
TRASH = ".trash"
_CLOSED = ("custom", "custom-snapshots", STAGING, TRASH)
"""What nobody but root passes through: a custom volume's own mode is its users' to change."""


class DirectoryPool(ABC):
    """A pool in a directory; see `StorageDriver`. No user of the host gets into a volume.

    A driver says how a volume is made, copied and removed.
    """

    info: ClassVar[Info]

    def __init__(self, path: str, config: Mapping[str, str]) -> None:
        self._path = path
        self._config = dict(config)
        self._source = config.get("source", "")

    @abstractmethod
    def _make(self, directory: str) -> None:
        """Make an empty volume at a path where nothing is."""

    @abstractmethod
    def _copy(self, source: str, directory: str) -> None:
        """Make a copy of the volume `source` at a path where nothing is; when it fails a part of it may be there."""

    @abstractmethod
    def _remove(self, directory: str) -> None:
        """Remove a volume, whole or in part, or nothing when there is none."""

    def _seal(self, directory: str, readonly: bool) -> None:  # noqa: B027 - most cannot
        """Make a volume read-only or writable, where the file system knows the difference."""

    def _new_staging(self) -> str:
        return f"{self._path}/{STAGING}/{secrets.token_hex(8)}"

    def _new_trash(self) -> str:
        return f"{self._path}/{TRASH}/{secrets.token_hex(8)}"

    def _make_directories(self) -> None:
        for name in (*KINDS, STAGING, TRASH):
            os.makedirs(f"{self._path}/{name}", mode=0o711, exist_ok=True)
        for name in _CLOSED:
            os.chmod(f"{self._path}/{name}", 0o700)

    def _make_link(self) -> None:
        """Make the pool's place a symbolic link to the empty directory that `source` names.

        Raises:
            BadRequest: it is none.
        """
        if not os.path.isabs(self._source):
            raise BadRequest(f"Invalid source {self._source!r}: an absolute path is needed")
        try:
            if os.listdir(self._source):
                raise BadRequest(f"Source path {self._source!r} isn't empty")
        except (FileNotFoundError, NotADirectoryError):
            raise BadRequest(f"Source path {self._source!r} is no directory") from None
        os.symlink(self._source, self._path)
        os.chmod(self._path, 0o711)  # noqa: S103 - to pass through only

    def _find_link(self, revert: Reverter) -> None:
        """Make the pool's place lead to the directory that `source` names, unless it does.

        Raises:
            BadRequest: something else is at the pool's place.
        """
        if not os.path.lexists(self._path):
            os.makedirs(os.path.dirname(self._path), mode=0o711, exist_ok=True)
            os.symlink(self._source, self._path)
            revert.add(os.unlink, self._path)
        elif os.path.realpath(self._path) != os.path.realpath(self._source):
            raise BadRequest(f"{self._path!r} is there and is not {self._source!r}", hint="move it away")

    def _require_pool(self) -> None:
        """Raise BadRequest unless a pool has been in the pool's place."""
        if not os.path.isdir(f"{self._path}/{KINDS[0]}"):
            place = self._source or self._path
            raise BadRequest(f"No storage pool lies in {place!r}: it has no directory {KINDS[0]!r}")

    @property
    def _is_elsewhere(self) -> bool:
        return self._source not in ("", self._path)

    def _reopen(self) -> None:
        """Take up a pool that is there: what a killed daemon was making becomes trash."""
        try:
            if os.statvfs(self._path).f_flag & os.ST_RDONLY:
                raise Unavailable(f"Storage pool directory {self._path!r} is read-only")
            if not os.path.isdir(f"{self._path}/{STAGING}"):
                # The directory below a mount is there without it, and nothing may be written to that.
                place = self._source if self._is_elsewhere else self._path
                raise Unavailable(f"Storage pool directory {place!r} holds no pool", hint="is it mounted?")
            self._make_directories()
            for staged in self._all_staged():
                os.rename(staged, self._new_trash())
        except OSError as error:
            raise Unavailable(f"Storage pool directory {self._path!r}: {error.strerror}") from error

    def _all_staged(self) -> list[str]:
        return [f"{self._path}/{STAGING}/{name}" for name in os.listdir(f"{self._path}/{STAGING}")]

    def update(self, config: Mapping[str, str]) -> None:
        """See `StorageDriver`."""
        self._config = dict(config)

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """See `StorageDriver`."""

    def path(self, volume: str) -> str:
        """See `StorageDriver`."""
        return f"{self._path}/{volume}"

    def create_volume(self, volume: str, fill: Callable[[str], None] | None = None, *, readonly: bool = False) -> None:
        """See `StorageDriver`."""
        with self._staged("creating the volume") as directory:
            self._make(directory)
            if fill:
                fill(directory)
            self._close(directory, volume)
            self._place(directory, volume, readonly)

    def _close(self, directory: str, volume: str) -> None:
        """Keep the host's users out of what becomes a volume, unless they cannot get there.

        What an archive or a stream says of the directory itself does not count: its owner would get to the guest's
        set-uid programs.
        """
        if volume.partition("/")[0] not in _CLOSED:
            os.chown(directory, 0, 0)
            os.chmod(directory, 0o700)

    def clone_volume(self, source: str, volume: str, *, readonly: bool = False) -> None:
        """See `StorageDriver`."""
        with self._staged("copying the volume") as directory:
            self._copy(self.path(source), directory)
            self._place(directory, volume, readonly)

    @contextlib.contextmanager
    def aside(self, volume: str) -> Iterator[str]:
        """See `StorageDriver`."""
        with self._staged("copying the volume") as directory:
            self._copy(self.path(volume), directory)
            try:
                yield os.path.relpath(directory, self._path)
            finally:
                self._remove(directory)

    def import_volume(self, directory: str, volume: str, *, readonly: bool = False) -> None:
        """See `StorageDriver`."""
        with self._staged("copying the volume") as staged:
            self._make(staged)
            tree.copy_contents(directory, staged)
            self._place(staged, volume, readonly)

    def refresh_volume(self, directory: str, volume: str) -> None:
        """See `StorageDriver`."""
        with self._staged("refreshing the volume") as staged:
            self._refresh(directory, self.path(volume), staged)
            self._take_place(staged, self.path(volume))

    @abstractmethod
    def _refresh(self, source: str, former: str, directory: str) -> None:
        """Make a copy of the directory `source` at a path where nothing is, out of `former` as far as that fits."""

    def _place(self, directory: str, volume: str, readonly: bool) -> None:
        target = self.path(volume)
        try:
            os.rename(directory, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), mode=0o711, exist_ok=True)
            os.rename(directory, target)
        if readonly:
            self._seal(target, readonly=True)  # after the rename: what is read-only cannot change its parent

    def replace_volume(self, source: str, volume: str) -> None:
        """See `StorageDriver`."""
        with self._staged("restoring the volume") as directory:
            self._copy(self.path(source), directory)
            self._take_place(directory, self.path(volume))

    def _take_place(self, directory: str, volume: str) -> None:
        self._keep_limit(volume, directory)
        rename.exchange(directory, volume)
        # Done: were it told otherwise, the former one would be lost and the change be taken for undone.
        with contextlib.suppress(OSError):  # in a full pool, say; then it is swept after the next start
            os.rename(directory, self._new_trash())

    def _keep_limit(self, former: str, new: str) -> None:
        """Hold a volume that is to take another's place to the same limit, though it took more already."""
        if size := self._limit(former):
            self._set_limit(new, size)

    @contextlib.contextmanager
    def _staged(self, doing: str) -> Iterator[str]:
        """Give a path for a new volume, where nothing is left when the block fails; OSErrors become `PylxcError`s."""
        directory = self._new_staging()
        try:
            yield directory
        except BaseException as error:
            self._remove(directory)
            if isinstance(error, OSError):
                raise tree.failure(error, doing) from error
            raise

    def send_volumes(self, volumes: Sequence[str], prepare: Callable[[str], None], sink: Sink) -> None:
        """See `StorageDriver`."""
        del volumes, prepare, sink
        raise self._without_streams()

    def receive_volumes(
        self, volumes: Sequence[str], receive: Callable[[str], None], check: Callable[[str], None]
    ) -> None:
        """See `StorageDriver`."""
        del volumes, receive, check
        raise self._without_streams()

    def _without_streams(self) -> NotSupported:
        return NotSupported(f"Storage driver {self.info.name!r} has no form of its own for backups")

    def flush(self) -> None:
        """See `StorageDriver`."""
        try:
            syncfs(self._path)
        except OSError as error:
            raise tree.failure(error, "writing the volume to the disk") from error

    def delete_volume(self, volume: str) -> None:
        """See `StorageDriver`."""
        path = self.path(volume)
        with contextlib.suppress(FileNotFoundError):
            self._seal(path, readonly=False)
        self._discard(path)
        self._drop_parent(volume)

    def delete_volumes(self, directory: str) -> None:
        """See `StorageDriver`."""
        self._discard(self.path(directory))

    def _discard(self, path: str) -> None:
        try:
            os.rename(path, self._new_trash())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise tree.failure(error, "deleting the volume") from error

    def _drop_parent(self, volume: str) -> None:
        """Remove the directory of an instance's snapshots with the last of them."""
        if volume.count("/") > 1:
            try:
                os.rmdir(os.path.dirname(self.path(volume)))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise tree.failure(error, "deleting the volume") from error

    def sweep(self) -> None:
        """See `StorageDriver`."""
        try:
            names = os.listdir(f"{self._path}/{TRASH}")
        except FileNotFoundError:
            return  # the pool is gone, or away
        failure: PylxcError | None = None
        for name in names:
            try:
                self._remove(f"{self._path}/{TRASH}/{name}")
            except PylxcError as error:  # others go all the same
                failure = error
        if failure:
            raise failure

    def rename_volume(self, volume: str, new: str) -> None:
        """See `StorageDriver`."""
        try:
            os.rename(self.path(volume), self.path(new))
        except FileNotFoundError as error:
            if not os.path.isdir(self.path(new)):
                raise tree.failure(error, "renaming the volume") from error
        except OSError as error:
            raise tree.failure(error, "renaming the volume") from error

    @abstractmethod
    def require_sizes(self) -> None:
        """See `StorageDriver`."""

    def set_size(self, volume: str, size: int) -> None:
        """See `StorageDriver`."""
        directory = self.path(volume)
        try:
            if size:
                self.require_sizes()
                self._account(directory)
                now = self._limit(directory)
                used = (self._usage(directory, exact=True) or 0) if not now or size < now else 0
                if used > size:
                    raise BadRequest(
                        f"A size of {units.binary_size(size)} is less than the {units.binary_size(used)} in use",
                        hint="free some space first",
                    )
            self._set_limit(directory, size)
        except OSError as error:
            raise tree.failure(error, "setting the volume's size") from error

    def size(self, volume: str) -> int:
        """See `StorageDriver`."""
        try:
            return self._limit(self.path(volume))
        except OSError:
            return 0

    def usage(self, volume: str) -> int | None:
        """See `StorageDriver`."""
        try:
            return self._usage(self.path(volume))
        except OSError:
            return None

    @abstractmethod
    def _account(self, directory: str) -> None:
        """Have the file system keep an account of a volume, where it does not yet; raises OSError."""

    @abstractmethod
    def _limit(self, directory: str) -> int:
        """Return the most bytes that a volume may take, 0 for no limit; raises OSError."""

    @abstractmethod
    def _set_limit(self, directory: str, size: int) -> None:
        """Limit a volume that there is an account of; 0 needs none. Raises OSError."""

    @abstractmethod
    def _usage(self, directory: str, *, exact: bool = False) -> int | None:
        """Return what a volume takes, with `exact` of this very moment; None without an account. Raises OSError."""

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
