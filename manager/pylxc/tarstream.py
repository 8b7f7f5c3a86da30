"""A tar stream, written and read without seeking, in little memory and few system calls: GNU's format.

The standard library's tarfile costs a file system call and a dozen objects more per member, and would have to be
imported before a container is entered. Sparse files, pax records and hard links are not written; pax paths are read.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
CHUNK = 1 << 18
"""Bytes that are worth a system call."""
_NAME = 100
_MAX_RECORD = 1 << 16

DIRECTORY = b"5"
FILE = b"0"
SYMLINK = b"2"
HARD_LINK = b"1"
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}


class Member:
    """One entry of an archive; `name` and `target` (of a link) are bytes as on the disk, `mtime` in seconds."""

    __slots__ = ("gid", "kind", "mode", "mtime", "name", "size", "target", "uid")

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name = name
        self.kind = kind
        self.target = b""
        self.size = 0
        self.mode = 0o644
        self.uid = 0
        self.gid = 0
        self.mtime = 0


def walk(top: bytes) -> Iterator[tuple[bytes, Member | None]]:
    """Yield path and member of everything in the tree at `top`, sorted, directories before what they hold.

    The members' names begin with the last part of `top`. The member is None of what is neither file, directory nor
    symbolic link. What vanishes meanwhile is left out.

    Raises:
        OSError: of what is there, not all can be read; or `top` is not there.
    """
    above, first = os.path.split(top)
    todo = [first or b"."]
    while todo:
        name = todo.pop()
        path = os.path.join(above, name)
        try:
            status = os.lstat(path)
            member = None
            if kind := _KINDS.get(stat.S_IFMT(status.st_mode)):
                member = Member(name, kind)
                member.uid, member.gid = status.st_uid, status.st_gid
                member.mode, member.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
                if kind == FILE:
                    member.size = status.st_size
                elif kind == SYMLINK:
                    member.target = os.readlink(path)
                else:
                    inside = sorted(os.listdir(path), reverse=True)
                    todo.extend(inside if name == b"." else [name + b"/" + child for child in inside])
        except FileNotFoundError:
            if path == top:
                raise
            continue
        yield path, member


def parts(member: Member) -> list[bytes]:
    """Return the parts of a member's name.

    Raises:
        ValueError: it leads outside of the archive.
    """
    found = [part for part in member.name.split(b"/") if part not in (b"", b".")]
    if b".." in found or member.name.startswith(b"/"):
        raise ValueError(f"the name {os.fsdecode(member.name)!r} leads outside")
    return found


def header(member: Member) -> bytes:
    """Return the blocks that come before a member's content."""
    blocks = b""
    if len(member.name) > _NAME:
        blocks += _long(b"L", member.name)
    if len(member.target) > _NAME:
        blocks += _long(b"K", member.target)
    return blocks + _block(member)


def padding(size: int) -> bytes:
    """Return what fills the last block of a content of `size` bytes."""
    return b"\0" * (-size % BLOCK)


END = b"\0" * (2 * BLOCK)


def _long(kind: bytes, text: bytes) -> bytes:
    record = Member(b"././@LongLink", kind)
    record.size = len(text) + 1
    return _block(record) + text + b"\0" + padding(record.size)


def _number(value: int, width: int) -> bytes:
    """Return `value` in octal, in base 256 (GNU) where that is too long or the value is negative."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    field: int = value % 256**width | 0x80 << 8 * (width - 1)
    return field.to_bytes(width, "big")


def _block(member: Member) -> bytes:
    fields = b"".join(
        (
            member.name[:_NAME].ljust(_NAME, b"\0"),
            _number(member.mode, 8),
            _number(member.uid, 8),
            _number(member.gid, 8),
            _number(member.size, 12),
            _number(member.mtime, 12),
            b"        ",
            member.kind,
            member.target[:_NAME].ljust(_NAME, b"\0"),
            b"ustar  \0",
        )
    ).ljust(BLOCK, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


class Reader:
    """Reads an archive.

    Args:
        read: returns the next bytes of the archive, as many as there are; none at its end.

    Example:
        for member in reader.members():
            reader.content(member, write)   # or not: what is left is skipped
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._buffer = memoryview(b"")
        self._left = 0

    def members(self) -> Iterator[Member]:
        """Yield the members in order, until the archive's end.

        Raises:
            ValueError: it is no tar archive, or breaks off.
        """
        name = target = size = None
        while True:
            self._skip()
            block = self._exactly(BLOCK)
            if not any(block):
                self._drain()
                return
            member = _parse(block)
            if size is not None and member.kind == FILE:
                member.size = int(size)
            self._left = member.size + -member.size % BLOCK
            if member.kind in (b"L", b"K", b"x", b"g"):
                text = self._record(member)
                if member.kind == b"L":
                    name = text.rstrip(b"\0")
                elif member.kind == b"K":
                    target = text.rstrip(b"\0")
                elif member.kind == b"x":
                    values = _pax(text)
                    name, target = values.get(b"path", name), values.get(b"linkpath", target)
                    size = values.get(b"size")
                continue
            member.name, member.target = name or member.name, target or member.target
            name = target = size = None
            yield member

    def content(self, member: Member, write: Callable[[memoryview], object]) -> None:
        """Hand the member's content to `write`, piece by piece.

        Raises:
            ValueError: the archive breaks off.
        """
        left = member.size
        while left:
            piece = self._some(left)
            write(piece)
            left -= len(piece)
            self._left -= len(piece)

    def _record(self, member: Member) -> bytes:
        if member.size > _MAX_RECORD:
            raise ValueError("a name in the archive is too long")
        text = bytes(self._exactly(member.size))
        self._left -= member.size
        return text

    def _skip(self) -> None:
        while self._left:
            self._left -= len(self._some(self._left))

    def _some(self, limit: int) -> memoryview:
        if not self._buffer:
            self._buffer = memoryview(self._read())
            if not self._buffer:
                raise ValueError("the archive breaks off")
        piece, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return piece

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            piece = self._some(size)
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def _drain(self) -> None:
        """Read to the end: a writer that pads the archive to its record size must not be cut off."""
        while self._read():
            pass


def _parse(block: bytes) -> Member:
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if total != _value(block[148:156]):
        raise ValueError("this is no tar archive")
    name = block[:_NAME].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    kind = block[156:157]
    if kind in (b"\0", b"7"):
        kind = DIRECTORY if name.endswith(b"/") else FILE
    member = Member(name, kind)
    member.mode = _value(block[100:108]) & 0o7777
    member.uid, member.gid = _value(block[108:116]), _value(block[116:124])
    member.size = _value(block[124:136])
    if member.size < 0:
        raise ValueError("this is no tar archive")
    member.mtime = _value(block[136:148])
    member.target = block[157:257].partition(b"\0")[0]
    if kind in (DIRECTORY, SYMLINK, HARD_LINK):
        member.size = 0
    return member


def _value(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << 8 * len(field) - 1) - 1)
        return value - (1 << 8 * len(field) - 1) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise ValueError("this is no tar archive") from None


def _pax(text: bytes) -> dict[bytes, bytes]:
    """Return the values of a pax header: records of `LENGTH KEY=VALUE` and a newline."""
    values = {}
    while text:
        length = int(text.split(b" ", 1)[0])
        if not 0 < length <= len(text):
            raise ValueError("a pax record in the archive is malformed")
        key, _, value = text[:length].rstrip(b"\n").partition(b" ")[2].partition(b"=")
        values[key] = value
        text = text[length:]
    return values
