"""Pools on btrfs: every volume is a subvolume, every copy a snapshot, at once whatever its size.

The pool is a loop file of its own, a block device, or a directory of a btrfs file system that is there already. Guests
may make subvolumes of their own (systemd does so in /var/lib/machines): these are copied and deleted with the volume.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

from pylxc import units
from pylxc.drivers.storage import tree
from pylxc.drivers.storage.base import KINDS, STAGING, TRASH, DirectoryPool
from pylxc.drivers.storage.driver import Info, Sink
from pylxc.errors import BadRequest, Unavailable
from pylxc.kernel import btrfs, btrfs_send, command, loop, mount, qgroup
from pylxc.revert import Reverter

_GIB = 1 << 30
LOOP_SMALLEST = 5 * _GIB
_LOOP_LARGEST = 30 * _GIB
_LOOP_SHARE = 0.2
_MKFS_SECONDS = 600
_WRITE_BACK_SECONDS = 0.1
_OPTIONS = "btrfs.mount_options"
_DEFAULT_OPTIONS = "user_subvol_rm_allowed"


class BtrfsDriver(DirectoryPool):
    """A pool on btrfs; see `StorageDriver`.

    `source` is empty for a loop file, `disks/POOL.img` beside storage-pools/; a block device, which is formatted and
    known by its UUID from then on; an empty directory on btrfs, to which the pool's place then is a symbolic link; or
    that place itself, where it is on btrfs: it becomes a subvolume.
    """

    info = Info(name="btrfs", version="6", has_instant_copies=True, has_streams=True)

    # The pool

    def create(self) -> dict[str, str]:
        """See `StorageDriver`."""
        changes: dict[str, str] = {}
        self._refuse_foreign(self._config)
        try:
            if not self._is_elsewhere and not self._is_loop:
                self._make_own()
            elif self._is_directory:
                self._make_link()
                if not btrfs.is_btrfs(self._source):
                    raise BadRequest(f"Source path {self._source!r} is not on btrfs")
            else:
                changes = self._make_image() if self._is_loop else {"source": str(uuid.uuid4())}
                self._format(changes["source"])
                self._source = changes["source"]
                self._mount()
            os.chmod(self._path, 0o711)  # noqa: S103 - to pass through only
            self._make_directories()
            if self._is_mounted:
                btrfs.sync(self._path)  # before the database tells of it
        except BaseException as error:
            self.delete()
            if isinstance(error, OSError):
                raise tree.failure(error, "creating the storage pool") from error
            raise
        return changes

    def delete(self) -> None:
        """See `StorageDriver`."""
        try:
            if self._is_mounted:
                self._unmount()
            elif os.path.islink(self._path):
                self._empty()
                os.unlink(self._path)
            elif not self._is_loop and not self._is_elsewhere:
                self._empty()
            if os.path.isdir(self._path):
                os.rmdir(self._path)
            if self._is_loop:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._image)
        except OSError as error:
            raise tree.failure(error, "deleting the storage pool") from error

    def adopt(self, revert: Reverter) -> dict[str, str]:
        """See `StorageDriver`."""
        found: dict[str, str] = {}
        try:
            if self._is_directory:
                self._find_link(revert)
            else:
                found = self._locate()
                self._source = found["source"]
                if not os.path.ismount(self._path):
                    if not os.path.isdir(self._path):
                        revert.add(os.rmdir, self._path)
                    self._mount()
                    revert.add(self._unmount)
            if not btrfs.is_btrfs(os.path.realpath(self._path)):
                raise BadRequest(f"Storage pool source {self._source!r} is not on btrfs")
        except OSError as error:
            source = self._source or self._image
            raise BadRequest(f"No storage pool can be found in {source!r}: {error.strerror}") from error
        self._require_pool()
        return found

    def _locate(self) -> dict[str, str]:
        """Return what `create` returned when it made the pool."""
        if self._is_loop:
            return {"source": self._image, "size": f"{os.stat(self._image).st_size}B"}
        if not _is_block(self._source):
            return {"source": self._source}
        argv = ["blkid", "--cache-file", "/dev/null", "--match-tag", "UUID", "--output", "value", self._source]
        found = command.run(argv, check=False).stdout.decode().strip()
        if not found:
            raise BadRequest(f"{self._source!r} holds no file system")
        return {"source": found}

    def open(self) -> None:
        """See `StorageDriver`."""
        try:
            if not self._is_directory and not self._is_mounted:
                self._mount()
            if not btrfs.is_btrfs(os.path.realpath(self._path)):
                raise Unavailable(f"Storage pool directory {self._path!r} is not on btrfs")
        except OSError as error:
            raise Unavailable(f"Storage pool source {self._source!r} cannot be used: {error.strerror}") from error
        self._reopen()

    def update(self, config: Mapping[str, str]) -> None:
        """See `StorageDriver`."""
        self._refuse_foreign(config)
        try:
            if (size := config.get("size", "")) != self._config.get("size", ""):
                self._grow(units.parse_bytes(size))
            if (options := config.get(_OPTIONS, "")) != self._config.get(_OPTIONS, ""):
                self._remount(options)
        except OSError as error:
            raise tree.failure(error, "changing the storage pool") from error
        super().update(config)

    def _refuse_foreign(self, config: Mapping[str, str]) -> None:
        """Refuse keys about what the pool is on and does not have in its hands."""
        if config.get("size") and not self._is_loop:
            raise BadRequest("Only a storage pool on a loop file has a size: this one's disk is given")
        if config.get(_OPTIONS) and self._is_directory:
            raise BadRequest(f"{_OPTIONS} is for file systems that the pool mounts itself: this one is the host's")

    def _grow(self, size: int) -> None:
        now = os.stat(self._image).st_size
        if size < now:
            raise BadRequest(
                f"A storage pool cannot be made smaller: it has {units.binary_size(now)}",
                hint="create a smaller one, and move what is in it: pylxc move INSTANCE --storage POOL",
            )
        os.truncate(self._image, size)
        loop.refresh(loop.device_of(self._image))
        btrfs.grow(self._path)

    def _remount(self, options: str) -> None:
        try:
            mount.reconfigure(self._path, _pairs(options))
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise BadRequest(f"Invalid {_OPTIONS} {options!r}: btrfs refuses them", hint="man 5 btrfs") from error
            raise

    def close(self) -> None:
        """See `StorageDriver`."""
        if self._is_mounted:
            with contextlib.suppress(OSError):
                self._unmount()

    @property
    def _image(self) -> str:
        root = os.path.dirname(os.path.dirname(self._path))
        return f"{root}/disks/{os.path.basename(self._path)}.img"

    @property
    def _is_loop(self) -> bool:
        return self._source in ("", self._image)

    @property
    def _is_directory(self) -> bool:
        return not self._is_loop and not _is_block(self._source) and not _is_uuid(self._source)

    @property
    def _is_mounted(self) -> bool:
        return not self._is_directory and os.path.ismount(self._path)  # a subvolume looks like a mount

    def _make_own(self) -> None:
        if not btrfs.is_btrfs(os.path.dirname(self._path)):
            raise BadRequest(f"Source path {self._source!r} is not on btrfs")
        btrfs.create(self._path)

    def _make_image(self) -> dict[str, str]:
        os.makedirs(os.path.dirname(self._image), mode=0o700, exist_ok=True)
        free = shutil.disk_usage(os.path.dirname(self._image)).free
        size = units.parse_bytes(self._config["size"]) if self._config.get("size") else _loop_size(free)
        with open(self._image, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size)
        return {"source": self._image, "size": self._config.get("size") or f"{size // _GIB}GiB"}

    def _format(self, name: str) -> None:
        argv = ["mkfs.btrfs", "--quiet", "--label", os.path.basename(self._path)]
        argv += [self._image] if self._is_loop else ["--uuid", name, "--", self._source]
        try:
            command.run(argv, timeout=_MKFS_SECONDS)
        except command.CommandFailed as error:
            # It destroys nothing unless it is told to, and it is not.
            if "overwrite" in error.stderr:
                raise BadRequest(
                    f"Source {self._source!r} holds a file system already", hint=f"wipefs --all {self._source}"
                ) from error
            raise

    def _mount(self) -> None:
        with contextlib.ExitStack() as stack:
            if self._is_loop:
                device, fd = loop.attach(self._image)
                stack.callback(os.close, fd)
            else:
                device = _device_of(self._source)
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            mount_fd = mount.new("btrfs", _pairs(self._config.get(_OPTIONS, "")), source=device)
            stack.callback(os.close, mount_fd)
            mount.attach_at(mount_fd, self._path)

    def _unmount(self) -> None:
        mount.unmount(self._path, 0)

    def _empty(self) -> None:
        for kind in (*KINDS, STAGING, TRASH):
            self._remove_all(f"{self._path}/{kind}")

    def _remove_all(self, directory: str) -> None:
        if not os.path.isdir(directory):
            return
        for entry in list(os.scandir(directory)):
            if btrfs.is_subvolume(entry.path):
                self._remove(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                self._remove_all(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(directory)

    # Its volumes

    def create_volume(self, volume: str, fill: Callable[[str], None] | None = None, *, readonly: bool = False) -> None:
        """See `StorageDriver`."""
        with self._writing_back() if fill and self._is_mounted else contextlib.nullcontext():
            super().create_volume(volume, fill, readonly=readonly)

    @contextlib.contextmanager
    def _writing_back(self) -> Iterator[None]:
        """Write to the disk what is in memory all the time: a snapshot waits for all that its source has there."""
        over = threading.Event()

        def work() -> None:
            with contextlib.suppress(OSError):  # whoever fills the volume is told
                while not over.wait(_WRITE_BACK_SECONDS):
                    btrfs.sync(self._path)

        thread = threading.Thread(target=work, name="write-back", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _make(self, directory: str) -> None:
        btrfs.create(directory)
        os.chmod(directory, 0o700)

    def _copy(self, source: str, directory: str) -> None:
        btrfs.snapshot(source, directory)
        qgroup.set_limit(directory, 0)  # the kernel has given it its source's

    def _refresh(self, source: str, former: str, directory: str) -> None:
        if os.stat(source).st_ino == btrfs.FIRST_INODE and os.path.dirname(os.path.dirname(source)) == self._path:
            self._copy(source, directory)
        else:
            self._copy(former, directory)
            tree.synchronise(source, directory, "--delete")
            self.flush()

    def _remove(self, directory: str) -> None:
        try:
            if btrfs.is_subvolume(directory):
                gone = btrfs.destroy(directory)
                qgroup.remove(os.path.realpath(self._path), gone)
            else:
                self._remove_all(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise tree.failure(error, "deleting the volume") from error

    def _seal(self, directory: str, readonly: bool) -> None:
        btrfs.set_readonly(directory, readonly)

    # Their streams

    def send_volumes(self, volumes: Sequence[str], prepare: Callable[[str], None], sink: Sink) -> None:
        """See `StorageDriver`."""
        with self._staged("writing the volume") as directory:
            os.mkdir(directory, 0o700)
            # Copies, as only what is read-only can be sent, and what is nested in a snapshot is not.
            copies = [f"{directory}/{number}" for number in range(len(volumes))]
            for volume, copy in zip(volumes, copies, strict=True):
                self._copy(self.path(volume), copy)
            prepare(copies[-1])
            before: list[str] = []
            for number, copy in enumerate(copies):
                parts = btrfs.nested_paths(copy)
                for path in [f"{copy}/{part}" for part in parts] + [copy]:
                    btrfs.set_readonly(path, readonly=True)
                for part in ["", *parts]:
                    path = f"/{part}"
                    parent = f"{copies[number - 1]}{path}" if path in before else ""
                    with sink(number, path) as fd:
                        btrfs_send.send(f"{copy}{path}", fd, parent)
                before = ["/", *(f"/{part}" for part in parts)]
            self._remove(directory)

    def receive_volumes(
        self, volumes: Sequence[str], receive: Callable[[str], None], check: Callable[[str], None]
    ) -> None:
        """See `StorageDriver`."""
        with self._staged("reading the volume") as directory:
            os.mkdir(directory, 0o700)
            receive(directory)
            made = [f"{directory}/{number}" for number in range(len(volumes))]
            for path, volume in zip(made, volumes, strict=True):
                if not os.path.lexists(path) or not btrfs.is_subvolume(path):
                    raise BadRequest("Invalid backup: its streams make something else than they should")
                self._close(path, volume)
                check(path)
            for path, volume in zip(made, volumes, strict=True):
                self._place(path, volume, readonly=volume != volumes[-1])
            self._remove(directory)

    # Their sizes

    def require_sizes(self) -> None:
        """See `StorageDriver`."""

    def _account(self, directory: str) -> None:
        if qgroup.usage(directory) is None:
            qgroup.enable(os.path.realpath(self._path))

    def _limit(self, directory: str) -> int:
        return qgroup.limit(directory)

    def _set_limit(self, directory: str, size: int) -> None:
        qgroup.set_limit(directory, size)

    def _usage(self, directory: str, *, exact: bool = False) -> int | None:
        return qgroup.usage(directory, exact=exact)


def _pairs(options: str) -> tuple[tuple[str, str], ...]:
    found = (option.partition("=") for option in (options or _DEFAULT_OPTIONS).split(","))
    return tuple((name, value) for name, _, value in found if name)


def _is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _device_of(name: str) -> str:
    """Return the block device that has a file system's UUID.

    Raises:
        Unavailable: there is none.
    """
    found = command.run(["blkid", "--cache-file", "/dev/null", "--uuid", name], check=False).stdout.decode().strip()
    if not found:
        raise Unavailable(f"No block device has the file system {name}", hint="attach the storage pool's disk")
    return found


def _loop_size(free: int) -> int:
    """Return the size of a loop file, bytes, as LXD chooses it: 20% of the free space, 5 to 30 GiB."""
    return min(max(int(free * _LOOP_SHARE) // _GIB * _GIB, LOOP_SMALLEST), _LOOP_LARGEST)
