"""A tar stream, written and read without seeking, in little memory and few system calls: POSIX's pax format.

The standard library's tarfile costs a file system call and a dozen objects more per member, and would have to be
imported before a container is entered; and it writes no holes. Holes are those of GNU's sparse format 1.0. GNU's long
names and large numbers are read as well.

See: pax(1), "pax Interchange Format"; the manual of GNU tar, "Storing Sparse Files"
"""

from __future__ import annotations

import errno
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
_MAX_MAP = 1 << 20
_MAX_EXTENTS = 20_000
_MAX_ID = 2**32 - 2
_MAX_SIZE = 2**63 - 1
_SECOND = 10**9

DIRECTORY = b"5"
FILE = b"0"
SYMLINK = b"2"
HARD_LINK = b"1"
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}
_DAMAGED = "this is no tar archive"


class Member:
    """One entry of an archive.

    Attributes:
        name: as on the disk; `target` too: of a symbolic link what it says, of a hard link another member's name.
        kind: one of the constants above, or what else an archive may have.
        size: bytes of a file, holes included.
        extents: (offset, bytes) of the parts of a file that are no holes, in order; None when all of it is there.
        mtime: nanoseconds since 1970.
    """

    __slots__ = ("extents", "gid", "kind", "mode", "mtime", "name", "size", "target", "uid")

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name = name
        self.kind = kind
        self.target = b""
        self.size = 0
        self.extents: list[tuple[int, int]] | None = None
        self.mode = 0o644
        self.uid = 0
        self.gid = 0
        self.mtime = 0

    @property
    def data(self) -> list[tuple[int, int]]:
        """(offset, bytes) of what is in the archive of a file's content, in this order."""
        return [(0, self.size)] if self.extents is None else self.extents

    @property
    def stored(self) -> int:
        """Bytes of a file's content that are in the archive."""
        return self.size if self.extents is None else sum(length for _, length in self.extents)


def walk(top: bytes) -> Iterator[tuple[bytes, Member | None]]:
    """Yield path and member of everything in the tree at `top`, sorted, directories before what they hold.

    The members' names begin with the last part of `top`; further names of a file are hard links. The member is None of
    what is neither file, directory nor symbolic link. What vanishes meanwhile is left out.

    Raises:
        OSError: of what is there, not all can be read; or `top` is not there.
    """
    above, first = os.path.split(top)
    todo, names = [first or b"."], dict[tuple[int, int], bytes]()
    while todo:
        name = todo.pop()
        path = os.path.join(above, name)
        try:
            status = os.lstat(path)
            member = None
            if kind := _KINDS.get(stat.S_IFMT(status.st_mode)):
                member = Member(name, kind)
                member.uid, member.gid = status.st_uid, status.st_gid
                member.mode, member.mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
                if kind == FILE:
                    first = names.setdefault((status.st_dev, status.st_ino), name) if status.st_nlink > 1 else name
                    if first != name:
                        member.kind, member.target = HARD_LINK, first
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


def measure(member: Member, fd: int) -> os.stat_result:
    """Set size and extents of a file's member to those of the open file; return its status.

    A file system that does not know of holes has none.
    """
    status = os.fstat(fd)
    member.size = status.st_size
    if status.st_blocks * 512 < status.st_size:
        member.extents = _extents(fd, status.st_size)
    return status


def _extents(fd: int, size: int) -> list[tuple[int, int]] | None:
    found: list[tuple[int, int]] = []
    at = 0
    try:
        while at < size:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = min(size, os.lseek(fd, start, os.SEEK_HOLE))
            # Whole blocks, as readers differ on what comes after a part of one.
            start, end = max(at, start - start % BLOCK), min(size, end + -end % BLOCK)
            found.append((start, end - start))
            at = end
    except OSError as error:
        if error.errno != errno.ENXIO:  # which says that the rest is a hole
            return None
    finally:
        os.lseek(fd, 0, os.SEEK_SET)
    return None if found == [(0, size)] or len(found) > _MAX_EXTENTS else found


def parts(name: bytes) -> list[bytes]:
    """Return the parts of a member's name, or of what a hard link names.

    Raises:
        ValueError: it leads outside of the archive.
    """
    found = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in found or name.startswith(b"/"):
        raise ValueError(f"the name {os.fsdecode(name)!r} leads outside")
    return found


def header(member: Member) -> bytes:
    """Return the blocks that come before a member's content."""
    stored = member.stored if member.kind == FILE else 0
    name, holes, values = member.name, b"", []
    sign, (whole, part) = b"-" if member.mtime < 0 else b"", divmod(abs(member.mtime), _SECOND)
    if sign or part or whole >= 8**11:
        values.append((b"mtime", b"%b%d.%09d" % (sign, whole, part)))
    if member.extents is not None:
        holes = _map(member)
        stored += len(holes)
        values += ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))
        values += ((b"GNU.sparse.name", name), (b"GNU.sparse.realsize", b"%d" % member.size))
    elif len(name) > _NAME:
        values.append((b"path", name))
    if len(member.target) > _NAME:
        values.append((b"linkpath", member.target))
    numbers = {b"uid": (member.uid, 8), b"gid": (member.gid, 8), b"size": (stored, 12)}
    values += [(key, b"%d" % value) for key, (value, width) in numbers.items() if value >= 8 ** (width - 1)]
    block = _block(name, member.kind, stored, member)
    if not values:
        return block
    records = b"".join(_record(key, value) for key, value in values)
    return _block(b"././@PaxHeader", b"x", len(records)) + records + padding(len(records)) + block + holes


def padding(size: int) -> bytes:
    """Return what fills the last block of a content of which `size` bytes are in the archive."""
    return b"\0" * (-size % BLOCK)


END = b"\0" * (2 * BLOCK)


def _map(member: Member) -> bytes:
    """Return what comes before the content of a file with holes."""
    extents = list(member.data)
    if not extents or sum(extents[-1]) < member.size:
        extents.append((member.size, 0))  # a hole at the end
    numbers = [len(extents), *(number for extent in extents for number in extent)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + padding(len(text))


def _record(key: bytes, value: bytes) -> bytes:
    """Return LENGTH KEY=VALUE and a newline; the length counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d%b" % (length, rest)


def _octal(value: int, width: int) -> bytes:
    """Return a number; one that is too long is in the records before."""
    return b"%0*o\0" % (width - 1, value if 0 <= value < 8 ** (width - 1) else 0)


_NOBODY = Member(b"", b"x")


def _block(name: bytes, kind: bytes, size: int, member: Member = _NOBODY) -> bytes:
    fields = b"".join(
        (
            name[:_NAME].ljust(_NAME, b"\0"),
            _octal(member.mode, 8),
            _octal(member.uid, 8),
            _octal(member.gid, 8),
            _octal(size, 12),
            _octal(member.mtime // _SECOND, 12),
            b"        ",
            kind,
            member.target[:_NAME].ljust(_NAME, b"\0"),
            b"ustar\00000",
        )
    ).ljust(BLOCK, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


class Reader:
    """Reads an archive.

    Args:
        read: returns the next bytes of the archive, as many as there are; none at its end.

    Example:
        for member in reader.members():
            for offset, piece in reader.content(member):   # or not: what is left is skipped
                os.pwrite(fd, piece, offset)
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._buffer = memoryview(b"")
        self._left = 0

    def members(self) -> Iterator[Member]:
        """Yield the members in order, until the archive's end.

        Raises:
            ValueError: it is no tar archive, breaks off, or has a file in a form that is not known.
        """
        values: dict[bytes, bytes] = {}
        while True:
            self._skip()
            block = self._exactly(BLOCK)
            if not any(block):
                self._drain()
                return
            member = _parse(block)
            if member.kind in (b"L", b"K", b"x", b"g"):
                self._left = member.size + -member.size % BLOCK
                if member.size > _MAX_RECORD:
                    raise ValueError("a name in the archive is too long")
                text = self._text(member.size)
                if member.kind in (b"L", b"K"):
                    values[b"path" if member.kind == b"L" else b"linkpath"] = text.rstrip(b"\0")
                else:
                    values |= _pax(text)
                continue
            _complete(member, values)
            self._left = member.size + -member.size % BLOCK
            if member.kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in values):
                self._read_map(member, values)
            values = {}
            yield member

    def content(self, member: Member) -> Iterator[tuple[int, memoryview]]:
        """Yield the member's content piece by piece, each with its offset in the file; what is a hole is left out.

        Raises:
            ValueError: the archive breaks off.
        """
        for start, length in member.data:
            offset, end = start, start + length
            while offset < end:
                piece = self._some(end - offset)
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)

    def _read_map(self, member: Member, values: dict[bytes, bytes]) -> None:
        """Read the map of a file's holes, which is the beginning of its content."""
        if (values.get(b"GNU.sparse.major"), values.get(b"GNU.sparse.minor")) != (b"1", b"0") or member.kind != FILE:
            raise ValueError("of GNU's formats for files with holes only 1.0 can be read")
        text, lines = b"", 1
        while text.count(b"\n") < lines:
            if len(text) >= min(_MAX_MAP, self._left):
                raise ValueError("a file in the archive has too many holes")
            text += self._text(BLOCK)
            first, newline, _ = text.partition(b"\n")
            lines = 1 + 2 * _decimal(first, _MAX_MAP) if newline else 1
        numbers = text.split(b"\n")[1:lines]
        stored = member.size - len(text)
        member.size = _decimal(values.get(b"GNU.sparse.realsize", b""))
        offsets, lengths = numbers[::2], numbers[1::2]
        member.extents = [(_decimal(at), _decimal(length)) for at, length in zip(offsets, lengths, strict=True)]
        at = 0
        for offset, length in member.extents:
            if offset < at:
                raise ValueError(_DAMAGED)
            at = offset + length
        if at > member.size or member.stored != stored:
            raise ValueError(_DAMAGED)

    def _text(self, size: int) -> bytes:
        text = self._exactly(size)
        self._left -= size
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
        pieces = []
        while size:
            piece = self._some(size)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _drain(self) -> None:
        """Read to the end: a writer that pads the archive to its record size must not be cut off."""
        while self._read():
            pass


def _parse(block: bytes) -> Member:
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if total != _value(block[148:156]):
        raise ValueError(_DAMAGED)
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
    member.mtime = _value(block[136:148]) * _SECOND
    member.target = block[157:257].partition(b"\0")[0]
    return member


def _complete(member: Member, values: dict[bytes, bytes]) -> None:
    """Set what the records before a member say of it, and check what the numbers are worth."""
    member.name = values.get(b"GNU.sparse.name") or values.get(b"path") or member.name
    member.target = values.get(b"linkpath") or member.target
    if b"uid" in values:
        member.uid = _decimal(values[b"uid"])
    if b"gid" in values:
        member.gid = _decimal(values[b"gid"])
    if b"mtime" in values:
        member.mtime = _nanoseconds(values[b"mtime"])
    if member.kind in (DIRECTORY, SYMLINK, HARD_LINK):
        member.size = 0
    elif b"size" in values:
        member.size = _decimal(values[b"size"])
    member.mtime = max(
        -_MAX_SIZE, min(_MAX_SIZE, member.mtime)
    )  # the year 2262, which is as far as utimensat goes here
    if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID and 0 <= member.size <= _MAX_SIZE):
        raise ValueError(_DAMAGED)


def _value(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << 8 * len(field) - 1) - 1)
        return value - (1 << 8 * len(field) - 1) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise ValueError(_DAMAGED) from None


def _decimal(text: bytes, most: int = _MAX_SIZE) -> int:
    if not text.isdigit() or len(text) > len(str(most)) or int(text) > most:
        raise ValueError(f"{text[:40]!r} in the archive is no number, or too large")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    whole, _, part = text.removeprefix(b"-").partition(b".")
    value = _decimal(whole) * _SECOND + _decimal(part[:9].ljust(9, b"0"))
    return -value if text.startswith(b"-") else value


def _pax(text: bytes) -> dict[bytes, bytes]:
    """Return the values of a pax header: records of `LENGTH KEY=VALUE` and a newline."""
    values = {}
    while text:
        length = _decimal(text.split(b" ", 1)[0])
        if not 0 < length <= len(text) or text[length - 1 : length] != b"\n":
            raise ValueError("a pax record in the archive is malformed")
        key, _, value = text[: length - 1].partition(b" ")[2].partition(b"=")
        values[key] = value
        text = text[length:]
    return values
