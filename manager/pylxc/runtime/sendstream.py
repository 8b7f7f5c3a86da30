"""Makes a btrfs subvolume of a stream that `btrfs send` has written, with no more rights than the cell's.

`btrfs receive` itself needs the rights of the host's root, to find subvolumes by their ids; what comes here may be
hostile. So all is done by paths below the subvolume, in a place where there is nothing else.

See: btrfs-send(8), linux/fs/btrfs/send.h
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from pylxc.kernel import btrfs
from pylxc.kernel.libc import AT_FDCWD
from pylxc.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_MAGIC = b"btrfs-stream\0"
_VERSION = 1
_COMMAND = struct.Struct("<IHI")
_ATTRIBUTE = struct.Struct("<HH")
_MAX_COMMAND = 1 << 20
_CLONE_RANGE = 0x4020940D
_CLONE_ARGS = struct.Struct("=qQQQ")
_CAPABILITY_OWNER = 20
"""Offset of the owner's id in a file capability of version 3."""

# Attributes
_UUID, _SIZE, _MODE, _UID, _GID, _RDEV = 1, 4, 5, 6, 7, 8
_MTIME, _ATIME, _XATTR_NAME, _XATTR_DATA = 10, 11, 13, 14
_PATH, _PATH_TO, _PATH_LINK, _OFFSET, _DATA = 15, 16, 17, 18, 19
_CLONE_UUID, _CLONE_PATH, _CLONE_OFFSET, _CLONE_LEN = 20, 22, 23, 24

_SUBVOLUME, _SNAPSHOT, _END = 1, 2, 21

Fields = dict[int, bytes]
Range = tuple[int, int, int]


class Receiver:
    """Makes subvolumes of streams, one after the other.

    Args:
        max_members: of files, in all.
    """

    def __init__(self, max_members: int) -> None:
        self._left = max_members
        self._made: dict[bytes, bytes] = {}
        self._absent: dict[bytes, set[bytes]] = {}
        self._commands: dict[int, Callable[[Fields], None]] = {
            3: self._make_file,
            4: lambda f: self._new(f, lambda path: os.mkdir(path, 0o700)),
            5: self._make_node,
            6: lambda f: self._new(f, lambda path: os.mkfifo(path, 0o600)),
            7: lambda f: self._new(f, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
            8: lambda f: self._new(f, lambda path: os.symlink(f[_PATH_LINK], path)),
            9: self._rename,
            10: self._link,
            11: self._unlink,
            12: self._rmdir,
            13: self._set_xattr,
            14: self._remove_xattr,
            15: self._write,
            16: self._clone,
            17: lambda f: os.ftruncate(self._file(f), _number(f, _SIZE)),
            18: self._chmod,
            19: self._chown,
            20: self._utimes,
        }
        self._open: tuple[bytes, int] | None = None
        self._above = b""
        self._directory = b""
        self._uids: Sequence[Range] = ()
        self._gids: Sequence[Range] = ()

    def receive(
        self, read: Callable[[int], bytes], directory: str, parent: str, uids: Sequence[Range], gids: Sequence[Range]
    ) -> None:
        """Make one subvolume.

        Args:
            read: returns the stream's next bytes, up to a number of them, b"" at the end.
            directory: where it goes; an empty directory may be there.
            parent: the subvolume, made before, that it differs from; "" for none.
            uids: how owners are shifted in the stream: (id to be, id in the stream, count).
            gids: likewise.

        Raises:
            ValueError: the stream is malformed.
            OSError: it cannot be done; `filename` tells of what.
        """
        self._directory, self._uids, self._gids = os.fsencode(directory), uids, gids
        if _exactly(read, len(_MAGIC)) != _MAGIC:
            raise ValueError("it is no btrfs stream")
        if (version := int.from_bytes(_exactly(read, 4), "little")) != _VERSION:
            raise ValueError(f"it is a btrfs stream of version {version}")
        kind, fields = _next(read)
        self._begin(kind, fields, os.fsencode(parent))
        os.chdir(self._directory)
        self._above = b""
        try:
            while (following := _next(read))[0] != _END:
                kind, fields = following
                if kind not in self._commands:
                    raise ValueError(f"its btrfs stream has the unknown command {kind}")
                self._commands[kind](fields)
        except KeyError as error:
            raise ValueError(f"its btrfs stream lacks attribute {error}") from error
        finally:
            self._close()

    def _begin(self, kind: int, fields: Fields, parent: bytes) -> None:
        if kind not in (_SUBVOLUME, _SNAPSHOT):
            raise ValueError("its btrfs stream does not begin with a subvolume")
        where = os.path.dirname(self._directory)
        times = os.stat(where)
        with suppress(FileNotFoundError):
            os.rmdir(self._directory)  # what stands in a snapshot for what was nested
        if kind == _SUBVOLUME:
            btrfs.create(os.fsdecode(self._directory))
            absent: set[bytes] = set()
        else:
            if not parent or self._made.get(fields.get(_CLONE_UUID, b"")) != parent:
                raise ValueError("its btrfs stream differs from something that is not in the backup")
            btrfs.snapshot(os.fsdecode(parent), os.fsdecode(self._directory), nested=False)
            absent = set(self._absent[parent])
        os.utime(where, ns=(times.st_atime_ns, times.st_mtime_ns))
        self._made[fields.get(_UUID, b"")] = self._directory
        self._absent[self._directory] = absent

    def _path(self, fields: Fields, key: int = _PATH) -> bytes:
        """Return a path of a command, which no symbolic link leads out of the subvolume."""
        path = fields[key]
        above = os.path.dirname(path)
        if path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/"):
            raise ValueError("its btrfs stream leads out of the subvolume")
        if above and above != self._above:
            os.close(
                openat2(AT_FDCWD, above, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            )
            self._above = above
        return path or b"."

    # What makes a name

    def _new(self, fields: Fields, make: Callable[[bytes], object]) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("it has too many files")
        make(self._path(fields))

    def _make_file(self, fields: Fields) -> None:
        self._new(fields, lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)))

    def _make_node(self, fields: Fields) -> None:
        mode, device = _number(fields, _MODE), _number(fields, _RDEV)
        try:
            self._new(fields, lambda path: os.mknod(path, stat.S_IFMT(mode) | 0o600, device))
        except PermissionError:
            self._missing.add(self._path(fields))  # a device: images and backups leave them out

    @property
    def _missing(self) -> set[bytes]:
        return self._absent[self._directory]

    def _rename(self, fields: Fields) -> None:
        self._close()
        old, new = self._path(fields), self._path(fields, _PATH_TO)
        self._above = b""  # a link may take its place
        if old in self._missing:
            self._missing.remove(old)
            self._missing.add(new)
            return
        os.rename(old, new)
        for path in [path for path in self._missing if path.startswith(old + b"/")]:
            self._missing.remove(path)
            self._missing.add(new + path[len(old) :])

    def _rmdir(self, fields: Fields) -> None:
        path, self._above = self._path(fields), b""  # a link may take its place
        os.rmdir(path)

    def _link(self, fields: Fields) -> None:
        if self._path(fields, _PATH_LINK) in self._missing:
            self._missing.add(self._path(fields))
        else:
            self._new(fields, lambda path: os.link(self._path(fields, _PATH_LINK), path, follow_symlinks=False))

    def _unlink(self, fields: Fields) -> None:
        self._close()
        if self._path(fields) in self._missing:
            self._missing.remove(self._path(fields))
        else:
            os.unlink(self._path(fields))

    # Contents

    def _file(self, fields: Fields) -> int:
        path = self._path(fields)
        if self._open is None or self._open[0] != path:
            self._close()
            self._open = path, os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _write(self, fields: Fields) -> None:
        fd, view, offset = self._file(fields), memoryview(fields[_DATA]), _number(fields, _OFFSET)
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count

    def _clone(self, fields: Fields) -> None:
        source = self._made.get(fields[_CLONE_UUID])
        if source is None:
            raise ValueError("its btrfs stream shares data with something that is not in the backup")
        path = self._path(fields, _CLONE_PATH)
        source_fd = os.open(source + b"/" + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            numbers = (_number(fields, key) for key in (_CLONE_OFFSET, _CLONE_LEN, _OFFSET))
            fcntl.ioctl(self._file(fields), _CLONE_RANGE, _CLONE_ARGS.pack(source_fd, *numbers))
        finally:
            os.close(source_fd)

    # Attributes

    def _set_xattr(self, fields: Fields) -> None:
        name, data = fields[_XATTR_NAME], fields[_XATTR_DATA]
        if name == b"security.capability" and len(data) > _CAPABILITY_OWNER:
            owner = _unshifted(int.from_bytes(data[_CAPABILITY_OWNER:], "little"), self._uids)
            data = data[:_CAPABILITY_OWNER] + owner.to_bytes(4, "little")
        self._attribute(fields, lambda path: os.setxattr(path, name, data, follow_symlinks=False), name)

    def _remove_xattr(self, fields: Fields) -> None:
        name = fields[_XATTR_NAME]
        self._attribute(fields, lambda path: os.removexattr(path, name, follow_symlinks=False), name)

    def _attribute(self, fields: Fields, change: Callable[[bytes], None], name: bytes) -> None:
        path = self._path(fields)
        if path in self._missing:
            return
        try:
            change(path)
        except OSError as error:
            # What only the host's root may set is left out, as from archives.
            optional = name.startswith((b"trusted.", b"security.")) and name != b"security.capability"
            if not optional or error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENODATA):
                raise

    def _chmod(self, fields: Fields) -> None:
        path = self._path(fields)
        if path not in self._missing:
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise ValueError("its btrfs stream changes the mode of a link")
            os.chmod(path, stat.S_IMODE(_number(fields, _MODE)))

    def _chown(self, fields: Fields) -> None:
        if self._path(fields) not in self._missing:
            uid, gid = _unshifted(_number(fields, _UID), self._uids), _unshifted(_number(fields, _GID), self._gids)
            os.lchown(self._path(fields), uid, gid)

    def _utimes(self, fields: Fields) -> None:
        if self._path(fields) not in self._missing:
            times = tuple(_time(fields[key]) for key in (_ATIME, _MTIME))
            os.utime(self._path(fields), ns=(times[0], times[1]), follow_symlinks=False)


def _next(read: Callable[[int], bytes]) -> tuple[int, Fields]:
    """Return a command and its attributes."""
    size, kind, _checksum = _COMMAND.unpack(_exactly(read, _COMMAND.size))
    if size > _MAX_COMMAND:
        raise ValueError("its btrfs stream has a command that is too large")
    data = _exactly(read, size)
    fields: Fields = {}
    offset = 0
    while offset < size:
        key, length = _ATTRIBUTE.unpack_from(data, offset)
        offset += _ATTRIBUTE.size
        if offset + length > size:
            raise ValueError("its btrfs stream has a malformed attribute")
        fields[key] = data[offset : offset + length]
        offset += length
    return kind, fields


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    while len(data) < size:
        more = read(size - len(data))
        if not more:
            raise ValueError("its btrfs stream is cut short")
        data += more
    return data


def _number(fields: Fields, key: int) -> int:
    return int.from_bytes(fields[key], "little")


def _time(data: bytes) -> int:
    seconds, nanoseconds = struct.unpack("<qI", data)
    return int(seconds * 1_000_000_000 + nanoseconds)


def _unshifted(number: int, ranges: Sequence[Range]) -> int:
    for inside, shifted, count in ranges:
        if shifted <= number < shifted + count:
            return inside + number - shifted
    return number
