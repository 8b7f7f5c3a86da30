"""The image files: $PYLXC_DIR/images/FINGERPRINT and FINGERPRINT.rootfs, put there whole or not at all.

A file is written and hashed in a staging directory beside the others and renamed when it is complete and on the
disk. What a dead daemon left is swept at the next start. Rows are the service's business.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from types import TracebackType
from typing import BinaryIO, Self

from pylxc.errors import BadRequest, Internal, PylxcError
from pylxc.units import format_bytes

_STAGING = ".staging-"
_MODE = 0o644  # read by the unpacker's unprivileged child; the directory keeps everyone else out
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class Staging:
    """An image on its way in: at first a metadata file (or the unified file), then perhaps a rootfs file.

    A context manager: what has not been put into the store is gone when the block ends. One writer at a time.

    Attributes:
        directory: absolute path; scratch space for those who build or download.
        size: bytes of both files so far.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.size = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None

    @property
    def fingerprint(self) -> str:
        """LXD's: the SHA-256 (hex) of the unified file, or of the metadata file and the rootfs file together."""
        return self._hash.hexdigest()

    @property
    def metadata_path(self) -> str:
        """The unified file, or a split image's metadata file."""
        return f"{self.directory}/metadata"

    @property
    def rootfs_path(self) -> str:
        """A split image's rootfs file."""
        return f"{self.directory}/rootfs"

    @property
    def is_split(self) -> bool:
        """Whether there is a rootfs file."""
        return os.path.exists(self.rootfs_path)

    def begin(self, part: str) -> None:
        """Begin the file that the next `write` goes to: "metadata" first, then "rootfs".

        Raises:
            BadRequest: another part, one given twice, or the wrong order (the fingerprint depends on it).
        """
        expected = "rootfs" if self._file else "metadata"
        if part != expected or self.is_split:
            raise BadRequest(f"Invalid image upload: expected the part {expected!r}, got {part!r}")
        self.finish()
        self._file = open(f"{self.directory}/{part}", "xb", buffering=0)  # noqa: SIM115 - `finish` closes it
        os.fchmod(self._file.fileno(), _MODE)

    def write(self, chunk: bytes) -> None:
        """Append to the part that was begun, and hash it.

        Raises:
            Internal: no space left.
        """
        assert self._file is not None
        try:
            self._file.write(chunk)
        except OSError as error:
            raise explain(error, "Failed writing the image") from error
        self._hash.update(chunk)
        self.size += len(chunk)

    def add(self, part: str, path: str) -> None:
        """Take a file that lies on the same file system as a part: hash it where it is, then rename it."""
        self.begin(part)
        with open(path, "rb") as source:
            while chunk := source.read(1 << 20):
                self._hash.update(chunk)
                self.size += len(chunk)
        os.chmod(path, _MODE)
        os.rename(path, f"{self.directory}/{part}")
        self.finish()
        self._file = open(f"{self.directory}/{part}", "rb", buffering=0)  # noqa: SIM115 - `finish` closes it

    def finish(self) -> None:
        """Close the part that was being written, once it is on the disk.

        Raises:
            Internal: no space left.
        """
        if self._file and not self._file.closed:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise explain(error, "Failed writing the image") from error
            finally:
                self._file.close()

    def discard(self) -> None:
        """Remove everything that has not been put into the store."""
        if self._file:
            self._file.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()


class Store:
    """The directory of image files. Thread-safe: every name is made by one atomic rename.

    Args:
        root: absolute path; made when it is missing, for root only.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the directory."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        os.chmod(self.root, 0o700)

    def stage(self) -> Staging:
        """Return a new staging area."""
        try:
            self.prepare()
            return Staging(tempfile.mkdtemp(prefix=_STAGING, dir=self.root))
        except OSError as error:
            raise explain(error, "Failed making room for the image") from error

    def need_room(self, size: int) -> None:
        """Check that `size` bytes more have room, before time is spent on getting them.

        Raises:
            Internal: they have not.
        """
        self.prepare()
        free = shutil.disk_usage(self.root).free
        if size > free:
            raise explain(OSError(errno.ENOSPC, ""), f"Failed making room for the image of {format_bytes(size)}")

    def metadata_path(self, fingerprint: str) -> str:
        """The unified file, or a split image's metadata file."""
        return f"{self.root}/{fingerprint}"

    def rootfs_path(self, fingerprint: str) -> str:
        """A split image's rootfs file; absent for a unified one."""
        return f"{self.root}/{fingerprint}.rootfs"

    def has(self, fingerprint: str) -> bool:
        """Tell whether the image's files are there."""
        return os.path.exists(self.metadata_path(fingerprint))

    def is_split(self, fingerprint: str) -> bool:
        """Tell whether the image has a rootfs file of its own."""
        return os.path.exists(self.rootfs_path(fingerprint))

    def put(self, staging: Staging) -> str:
        """Move a complete staging into the store and return its fingerprint.

        The metadata file comes last: it is what `has` looks for.
        """
        staging.finish()
        fingerprint = staging.fingerprint
        moves = [(staging.metadata_path, self.metadata_path(fingerprint))]
        if staging.is_split:
            moves.insert(0, (staging.rootfs_path, self.rootfs_path(fingerprint)))
        for source, target in moves:
            os.rename(source, target)
        self._sync()
        return fingerprint

    def delete(self, fingerprint: str) -> None:
        """Remove an image's files, if any; the metadata file first, so that a half-deleted image counts as gone."""
        for path in (self.metadata_path(fingerprint), self.rootfs_path(fingerprint)):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue

    def sweep(self, known: Iterable[str]) -> list[str]:
        """Remove what no row knows and what a dead daemon had staged; return the known fingerprints without files."""
        self.prepare()
        wanted = set(known)
        for name in os.listdir(self.root):
            path = f"{self.root}/{name}"
            fingerprint = name.removesuffix(".rootfs")
            if name.startswith(_STAGING):
                shutil.rmtree(path, ignore_errors=True)
            elif _FINGERPRINT.fullmatch(fingerprint) and (fingerprint not in wanted or not self.has(fingerprint)):
                os.unlink(path)
        return sorted(fingerprint for fingerprint in wanted if not self.has(fingerprint))

    def _sync(self) -> None:
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def explain(error: OSError, doing: str) -> PylxcError:
    """Return the error for a user of an OSError that came while `doing` ("Failed writing the image")."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Internal(f"{doing}: no space left on the disk", hint="free some space, or delete images")
    return Internal(f"{doing}: {error.strerror}")
