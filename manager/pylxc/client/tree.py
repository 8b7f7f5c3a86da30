"""Trees of files as tar streams: packed from the caller's disk, unpacked onto it.

What comes out of an instance is untrusted: unpacking never follows a symbolic link, never leaves the target, creates
nothing but files, directories and links, and drops set-id bits. Times, hard links and holes are kept both ways, owners
on the way in, and on the way out by root.
"""

from __future__ import annotations

import contextlib
import os

from pylxc import tarstream
from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_MODE = 0o777


def pack(source: str) -> Iterator[bytes]:
    """Yield a tar archive of the tree at `source`, its members below the last part of its name.

    Args:
        source: a directory.

    Raises:
        BadRequest: a member is neither file, directory nor symbolic link, or becomes shorter meanwhile.
        OSError: one cannot be read.
    """
    buffer = bytearray()
    for piece in _pieces(os.fsencode(os.path.abspath(source))):
        buffer += piece
        if len(buffer) >= tarstream.CHUNK:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer + tarstream.END)


def _pieces(top: bytes) -> Iterator[bytes]:
    for path, member in tarstream.walk(top):
        if member is None:
            raise BadRequest(f"{os.fsdecode(path)} is neither a file, a directory nor a symbolic link")
        if member.kind == tarstream.FILE:
            yield from _file(path, member)
        else:
            yield tarstream.header(member)


def _file(path: bytes, member: tarstream.Member) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tarstream.measure(member, fd)
        yield tarstream.header(member)
        for offset, length in member.data:
            os.lseek(fd, offset, os.SEEK_SET)
            left = length
            while left:
                data = os.read(fd, min(left, tarstream.CHUNK))
                if not data:
                    raise BadRequest(f"{os.fsdecode(path)} became shorter while it was being sent")
                left -= len(data)
                yield data
        yield tarstream.padding(member.stored)
    finally:
        os.close(fd)


def unpack(pieces: Iterator[bytes], target: str, source: str, on_bytes: Callable[[int], None] | None = None) -> None:
    """Unpack a tar archive below the directory `target`; files that are there already are replaced.

    Args:
        pieces: the archive.
        target: a directory.
        source: what was asked for: the archive may have nothing beside its last part, which "/" has not.
        on_bytes: called with the number of bytes after each piece of content written.

    Raises:
        BadRequest: the archive is damaged, names a member outside of the target, or has one that is neither file,
            directory nor link.
        OSError: something cannot be written.
    """
    reader = tarstream.Reader(lambda: next(pieces, b""))
    top = os.fsencode(os.path.basename(os.path.normpath(f"/{source}")))
    directories: list[tuple[list[bytes], tarstream.Member]] = []
    with _Below(target) as below:
        try:
            for member in reader.members():
                if parts := tarstream.parts(member.name):
                    if top not in (b"", parts[0]):
                        raise ValueError(f"{os.fsdecode(member.name)!r} was not asked for")
                    _unpack_member(reader, member, below, parts, on_bytes)
                    if member.kind == tarstream.DIRECTORY:
                        directories.append((parts, member))
        except ValueError as error:
            raise BadRequest(f"The archive is damaged: {error}") from None
        # Directories come last, as what comes into them changes their time and needs the right to write.
        for parts, member in reversed(directories):
            _finish(below.directory(parts), member)


class _Below:
    """Directories below one of the caller's, opened without following links. The last one stays open."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fd = os.dup(self._root)
        self._parts: list[bytes] | None = []

    def __enter__(self) -> _Below:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        os.close(self._root)

    def directory(self, parts: list[bytes]) -> int:
        """Return a descriptor of the directory, good until the next call; raises OSError."""
        if parts != self._parts:
            os.dup2(self._root, self._fd, inheritable=False)
            self._parts = None
            for part in parts:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
                os.close(self._fd)
                self._fd = inner
            self._parts = parts
        return self._fd


def _unpack_member(
    reader: tarstream.Reader,
    member: tarstream.Member,
    below: _Below,
    parts: list[bytes],
    on_bytes: Callable[[int], None] | None,
) -> None:
    name, parent = parts[-1], below.directory(parts[:-1])
    if member.kind == tarstream.DIRECTORY:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    elif member.kind == tarstream.SYMLINK:
        _anew(lambda: os.symlink(member.target, name, dir_fd=parent), name, parent)
        if os.geteuid() == 0:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
    elif member.kind == tarstream.HARD_LINK:
        _link(below, tarstream.parts(member.target), parts)
    elif member.kind == tarstream.FILE:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = _anew(lambda: os.open(name, flags, 0o600, dir_fd=parent), name, parent)
        try:
            for offset, piece in reader.content(member):
                _write_at(fd, piece, offset)
                if on_bytes:
                    on_bytes(len(piece))
            if member.extents is not None:
                os.ftruncate(fd, member.size)
            _finish(fd, member)
        finally:
            os.close(fd)
    else:
        raise ValueError(f"{os.fsdecode(member.name)!r} is no file, directory or link")


def _link(below: _Below, source: list[bytes], parts: list[bytes]) -> None:
    """Give a file of the target a further name."""
    if not source:
        raise ValueError("a link leads to nothing")
    origin = os.dup(below.directory(source[:-1]))
    try:
        parent = below.directory(parts[:-1])
        _anew(
            lambda: os.link(source[-1], parts[-1], src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False),
            parts[-1],
            parent,
        )
    finally:
        os.close(origin)


def _finish(fd: int, member: tarstream.Member) -> None:
    """Give a file or directory owner, mode and time."""
    if os.geteuid() == 0:
        os.fchown(fd, member.uid, member.gid)
    os.fchmod(fd, member.mode & _MODE)
    os.utime(fd, ns=(member.mtime, member.mtime))


def _anew(make: Callable[[], Any], name: bytes, parent: int) -> Any:
    """Make something in the place of whatever is there."""
    try:
        return make()
    except FileExistsError:
        os.unlink(name, dir_fd=parent)
        return make()


def _write_at(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        offset += count
        data = data[count:]
