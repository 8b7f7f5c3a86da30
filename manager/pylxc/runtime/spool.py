"""A file that is written: its bytes wait beside their destination until they are all there.

Whoever gives up, or is killed, leaves nothing: the bytes are in a file without a name (O_TMPFILE) where the file system
has that. A file that is there already keeps owner, mode and attributes.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Self

from pylxc.errors import BadRequest

_CHUNK = 1 << 20
_MEMORY = 16 << 20
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL)


class Spool:
    """Content on its way to the file at `path`.

    Attributes:
        exists: whether the file is there already.
        size: bytes written so far.
    """

    def __init__(self, path: str, proc_fd: int) -> None:
        """Prepare to write `path`; a symbolic link is followed, also one that leads to nothing.

        Args:
            path: absolute, inside the container.
            proc_fd: the host's /proc, to name a file that has no name.

        Raises:
            OSError: there is no such directory, or it cannot be written.
            BadRequest: what is there is no file.
        """
        self._path = path
        self._proc_fd = proc_fd
        self._name = ""
        self.size = 0
        status = _look(path)
        if status is not None and stat.S_ISLNK(status.st_mode):
            self._path = os.path.realpath(path)
            status = _look(self._path)
        self.exists = status is not None
        if status is not None:
            if not stat.S_ISREG(status.st_mode):
                raise BadRequest(f"{path!r} is there already and is no file")
            self._status = status
        self._in_memory = False
        self._splices = True
        self._fd = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        self._remove()

    def take(self, source_fd: int) -> bool:
        """Take what a pipe or file has to give at once; False at its end."""
        if self._splices:
            try:
                count = os.splice(source_fd, self._fd, _CHUNK)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._splices = False  # this file system cannot
            else:
                self.size += count
                return count > 0
        data = os.read(source_fd, _CHUNK)
        self.write(memoryview(data))
        return bool(data)

    def write(self, data: memoryview) -> None:
        """Add bytes."""
        if self._in_memory and self.size + len(data) > _MEMORY:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        while data:
            count = os.write(self._fd, data)
            self.size += count
            data = data[count:]

    def write_at(self, data: memoryview, offset: int) -> None:
        """Write bytes of the file at `offset`; where none are written is a hole."""
        if self._in_memory and offset + len(data) > _MEMORY:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        while data:
            count = os.pwrite(self._fd, data, offset)
            offset += count
            data = data[count:]

    def end_at(self, size: int) -> None:
        """Have the file end at `size` bytes: there is a hole at its end."""
        os.ftruncate(self._fd, size)

    def keep_replaced(self) -> None:
        """Hold the file that `commit` replaces until this process ends: freeing a big one takes a file system long."""
        if self.exists:
            os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def commit(self, owner: tuple[int, int], mode: int, mtime: int | None = None) -> None:
        """Make the bytes the file's content; `owner` and `mode` are for a file that is new, `mtime` is in nanoseconds.

        A file that has other names, is a mount point or lies where nothing can be renamed is overwritten in place.
        """
        if self.exists:
            if self._in_memory or self._status.st_nlink > 1:
                self._overwrite(os.O_TRUNC)
                return
            owner, mode = (self._status.st_uid, self._status.st_gid), stat.S_IMODE(self._status.st_mode)
            self._copy_attributes()
        os.fchown(self._fd, *owner)
        os.fchmod(self._fd, mode)
        if mtime is not None:
            os.utime(self._fd, ns=(mtime, mtime))
        try:
            self._put_in_place()
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            self._overwrite(os.O_TRUNC)

    def append(self) -> None:
        """Add the bytes to the end of the file, which exists."""
        self._overwrite(os.O_APPEND)

    def _open(self) -> int:
        directory = os.path.dirname(self._path)
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE or not os.path.isdir(directory):
                raise
        name = os.path.join(directory, f".pylxc-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            if not self.exists:
                raise
            # A file of /proc or /sys: it can be written, but nothing can be made beside it.
            self._in_memory = True
            self._splices = False
            return os.memfd_create("spool", os.MFD_CLOEXEC)
        self._name = name
        return fd

    def _copy_attributes(self) -> None:
        # Capabilities of a program are lost by writing to it, as the kernel has it for every writer.
        for name in os.listxattr(self._path, follow_symlinks=False):
            if name != "security.capability":
                try:
                    os.setxattr(self._fd, name, os.getxattr(self._path, name, follow_symlinks=False))
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENODATA):
                        raise

    def _put_in_place(self) -> None:
        if not self._name and not self.exists:
            try:
                self._link(self._path)
            except FileExistsError:
                pass  # somebody was faster: replace it
            else:
                return
        if not self._name:
            name = os.path.join(os.path.dirname(self._path), f".pylxc-{os.getpid()}-{os.urandom(4).hex()}")
            self._link(name)
            self._name = name
        os.rename(self._name, self._path)
        self._name = ""

    def _link(self, name: str) -> None:
        os.link(f"self/fd/{self._fd}", name, src_dir_fd=self._proc_fd, follow_symlinks=True)

    def _overwrite(self, flag: int) -> None:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        target = os.open(self._path, flags | flag)
        try:
            if not stat.S_ISREG(os.fstat(target).st_mode):
                raise BadRequest(f"{self._path!r} is no file")
            os.lseek(self._fd, 0, os.SEEK_SET)
            while data := os.read(self._fd, _CHUNK):
                view = memoryview(data)
                while view:
                    view = view[os.write(target, view) :]
        finally:
            os.close(target)

    def _remove(self) -> None:
        if self._name:
            os.unlink(self._name)
            self._name = ""


def _look(path: str) -> os.stat_result | None:
    """Return what is at `path` itself, None for nothing."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
