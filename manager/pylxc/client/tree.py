"""Trees of files as tar streams: packed from the caller's disk, unpacked onto it.

What comes out of an instance is untrusted: unpacking never follows a symbolic link, never leaves the target, creates
no device nodes and drops set-id bits.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile

from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_BLOCK = 1 << 18
_RECORD = 512
_MODE = 0o777


def pack(source: str, *, uid: int = -1, gid: int = -1, on_file: Callable[[str], None] | None = None) -> Iterator[bytes]:
    """Yield a tar archive of the tree at `source`, its members below the last part of its name.

    Args:
        source: a directory.
        uid: owner of every member, -1 for its own.
        gid: group of every member, -1 for its own.
        on_file: called with the path of every member.

    Raises:
        BadRequest: a member is neither file, directory nor symbolic link.
    """
    top = os.path.dirname(os.path.abspath(source))
    for path in _walk(os.path.abspath(source)):
        if on_file:
            on_file(path)
        status = os.lstat(path)
        info = tarfile.TarInfo(os.path.relpath(path, top))
        info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        info.uid = uid if uid >= 0 else status.st_uid
        info.gid = gid if gid >= 0 else status.st_gid
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                info.size = os.fstat(file.fileno()).st_size
                yield _header(info)
                yield from _content(file, info.size, path)
            continue
        if stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
        else:
            raise BadRequest(f"{path} is neither a file, a directory nor a symbolic link")
        yield _header(info)
    yield b"\0" * (2 * _RECORD)


def _walk(path: str) -> Iterator[str]:
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for name in sorted(os.listdir(path)):
            yield from _walk(os.path.join(path, name))


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(file: BinaryIO, size: int, path: str) -> Iterator[bytes]:
    left = size
    while left:
        data = file.read(min(left, _BLOCK))
        if not data:
            raise BadRequest(f"{path} became shorter while it was being sent")
        left -= len(data)
        yield data
    yield b"\0" * (-size % _RECORD)


class _Pieces:
    """An iterator of byte strings as the file object that tarfile reads."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            if not self._rest:
                self._rest = next(self._pieces, b"")
                if not self._rest:
                    break
            parts.append(self._rest[:left])
            self._rest = self._rest[left:]
            left -= len(parts[-1])
        return b"".join(parts)


def unpack(pieces: Iterator[bytes], target: str, on_bytes: Callable[[int], None] | None = None) -> None:
    """Unpack a tar archive below the directory `target`; files that are there already are replaced.

    Args:
        pieces: the archive.
        target: a directory.
        on_bytes: called with the number of bytes after each piece written.

    Raises:
        BadRequest: the archive is damaged, or names a member outside of the target.
    """
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    modes: list[tuple[list[str], int]] = []
    try:
        with tarfile.open(fileobj=_Pieces(pieces), mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                parts = [part for part in member.name.split("/") if part not in {"", "."}]
                if member.name.startswith("/") or ".." in parts:
                    raise BadRequest(f"The archive names {member.name!r}, which is outside of the target")
                if parts:
                    _unpack_member(archive, member, root, parts, modes, on_bytes)
        # Modes of directories come last, so that those without the write bit can be filled.
        for parts, mode in reversed(modes):
            parent = _open_parent(root, parts)
            fd = os.open(parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            os.fchmod(fd, mode)
            os.close(fd)
            os.close(parent)
    except tarfile.TarError as error:
        raise BadRequest(f"The archive is damaged: {error}") from error
    finally:
        os.close(root)


def _open_parent(root: int, parts: list[str]) -> int:
    fd = os.dup(root)
    for part in parts[:-1]:
        try:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def _unpack_member(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    root: int,
    parts: list[str],
    modes: list[tuple[list[str], int]],
    on_bytes: Callable[[int], None] | None,
) -> None:
    parent = _open_parent(root, parts)
    try:
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(parts[-1], 0o700, dir_fd=parent)
            modes.append((parts, member.mode & _MODE))
            return
        if not (member.isreg() or member.issym() or member.islnk()):
            return  # device nodes, sockets, pipes: of no use outside
        with contextlib.suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=parent)
        if member.issym():
            os.symlink(member.linkname, parts[-1], dir_fd=parent)
        elif member.islnk():
            _link(root, member.linkname, parent, parts[-1])
        else:
            _write(archive, member, parent, parts[-1], on_bytes)
    finally:
        os.close(parent)


def _link(root: int, linkname: str, parent: int, name: str) -> None:
    parts = [part for part in linkname.split("/") if part not in {"", "."}]
    if not parts or ".." in parts or linkname.startswith("/"):
        raise BadRequest(f"The archive links to {linkname!r}, which is outside of the target")
    source = _open_parent(root, parts)
    try:
        os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(source)


def _write(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    parent: int,
    name: str,
    on_bytes: Callable[[int], None] | None,
) -> None:
    content = archive.extractfile(member)
    assert content is not None
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    with os.fdopen(fd, "wb", buffering=0) as file:
        while data := content.read(_BLOCK):
            file.write(data)
            if on_bytes:
                on_bytes(len(data))
        os.fchmod(file.fileno(), member.mode & _MODE)
