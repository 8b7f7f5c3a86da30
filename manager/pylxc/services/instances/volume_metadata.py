"""metadata.yaml and templates/ beside an instance's root file system. See: LXD doc image-handling.

They came with an image or a backup, and what lies under these names is not trusted: nothing leads out of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

import yaml

from pylxc.errors import BadRequest, Conflict, NotFound, PylxcError
from pylxc.kernel.openat2 import openat2
from pylxc.services.metadata_yaml import MAX_BYTES, parse
from pylxc.wire.instances import InstanceMetadata

_METADATA = "metadata.yaml"
_TEMPLATES = "templates"
_NEW = ".new"
_BACKUP = "backup.yaml"
_MAX_BACKUP_BYTES = 64 << 20
"""Of a backup.yaml, at most: a thousand snapshots make two megabytes."""


class VolumeMetadata:
    """The files of one volume, open while it lasts. A context manager.

    Args:
        path: the volume's directory.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> VolumeMetadata:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self) -> InstanceMetadata | None:
        """Return what metadata.yaml says, None when there is none.

        Raises:
            BadRequest: it is malformed, too large or no file.
        """
        try:
            content = _read(self._fd, _METADATA)
        except NotFound:
            return None
        return parse(content)

    def write(self, metadata: InstanceMetadata) -> None:
        """Replace metadata.yaml.

        Raises:
            BadRequest: it would be too large.
        """
        content = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True).encode()
        _check_size(content, _METADATA)
        self._replace(content, _METADATA, self._fd)

    def backup(self) -> bytes | None:
        """Return backup.yaml, None when there is none; raises BadRequest when it is no file, or too large."""
        try:
            return _read(self._fd, _BACKUP, _MAX_BACKUP_BYTES)
        except NotFound:
            return None

    def write_backup(self, content: bytes) -> None:
        """Replace backup.yaml; this may run beside the other methods. Raises BadRequest when it cannot be written."""
        self._replace(content, _BACKUP, self._fd, draft=f"{_NEW}-backup", mode=0o600)

    def templates(self) -> list[str]:
        """Return the names in templates/, sorted."""
        try:
            directory = self._directory(os.O_RDONLY)
        except FileNotFoundError:
            return []
        try:
            return sorted(os.listdir(directory))
        finally:
            os.close(directory)

    def template(self, name: str) -> bytes:
        """Return a template's source; a symbolic link leads to another template at most.

        Raises:
            NotFound: there is none.
            BadRequest: it is no file, or too large.
        """
        try:
            directory = self._directory(os.O_PATH)
        except FileNotFoundError:
            raise NotFound(f"Template {name!r} not found") from None
        try:
            return _read(directory, name)
        except NotFound:
            raise NotFound(f"Template {name!r} not found") from None
        finally:
            os.close(directory)

    def write_template(self, name: str, content: bytes) -> None:
        """Make or replace a template.

        Raises:
            BadRequest: it is too large, or no name of one.
        """
        _check_name(name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(_TEMPLATES, 0o711, dir_fd=self._fd)
        directory = self._directory(os.O_PATH)
        try:
            _check_size(content, name)
            self._replace(content, name, directory)
        finally:
            os.close(directory)

    def delete_template(self, name: str) -> None:
        """Delete a template.

        Raises:
            NotFound: there is none.
            BadRequest: it is a directory, or no name of a template.
        """
        _check_name(name)
        try:
            directory = self._directory(os.O_PATH)
        except FileNotFoundError:
            raise NotFound(f"Template {name!r} not found") from None
        try:
            os.unlink(name, dir_fd=directory)
        except OSError as error:
            raise _explain(error, name) from None
        finally:
            os.close(directory)

    def _directory(self, flags: int) -> int:
        flags |= os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(_TEMPLATES, flags, dir_fd=self._fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise BadRequest(f"The instance's {_TEMPLATES} is no directory") from None
            raise

    def _replace(self, content: bytes, name: str, directory: int, *, draft: str = _NEW, mode: int = 0o644) -> None:
        """Write a file beside and rename it; the caller keeps two from one draft at a time."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=self._fd)  # of somebody who was killed
            with open(os.open(draft, flags, mode, dir_fd=self._fd), "wb") as file:
                file.write(content)
            os.rename(draft, name, src_dir_fd=self._fd, dst_dir_fd=directory)
        except OSError as error:
            raise _explain(error, name) from None


def _read(directory: int, name: str, most: int = MAX_BYTES) -> bytes:
    """Return the content of a file, resolved with `directory` as the root.

    Raises:
        NotFound: there is none.
        BadRequest: it is no file, or too large.
    """
    try:
        fd = openat2(directory, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BadRequest(f"{name!r} is no file")
            content = file.read(most + 1)
    except OSError as error:
        raise _explain(error, name) from None
    _check_size(content, name, most)
    return content


def _check_size(content: bytes, name: str, most: int = MAX_BYTES) -> None:
    if len(content) > most:
        raise BadRequest(f"{name!r} is too large: {most >> 10} KiB at most")


def _check_name(name: str) -> None:
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(os.fsencode(name)) > 255:
        raise BadRequest(f"Invalid template name {name[:80]!r}")


def _explain(error: OSError, name: str) -> PylxcError:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{name!r} not found")
    if isinstance(error, IsADirectoryError):
        return Conflict(f"{name!r} is a directory")
    return BadRequest(f"{name!r}: {error.strerror}")
