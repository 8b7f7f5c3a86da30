"""Files that a command writes for its user: each is there under its name when it is whole, or not at all."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class NewFile:
    """A file to be written in a `with` block; what is there under its name stays until the block ends well.

    What is no regular file, as /dev/null or a pipe, is written to as it is, and a link to a file stays a link.

    Args:
        path: its name.
        mode: its permission bits, but for those that the umask takes.
        durable: it is on the disk when it is there.

    Attributes:
        fd: its descriptor.

    Raises:
        OSError: it cannot be opened; `filename` is `path`.
    """

    def __init__(self, path: str, mode: int = 0o644, *, durable: bool = False) -> None:
        try:
            is_plain = stat.S_ISREG(os.stat(path).st_mode)
        except FileNotFoundError:
            is_plain = True
        self._durable = durable and is_plain
        self._final = os.path.realpath(path) if is_plain else ""
        self._partial = f"{self._final}.part" if is_plain else ""
        flags = os.O_CREAT | os.O_TRUNC if is_plain else 0
        try:
            self.fd = os.open(self._partial or path, os.O_WRONLY | os.O_CLOEXEC | flags, mode)
        except OSError as error:
            error.filename = path
            raise

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_done = False
        try:
            try:
                if kind is None and self._durable:
                    os.fsync(self.fd)
            finally:
                os.close(self.fd)
            if kind is None and self._partial:
                os.rename(self._partial, self._final)
            is_done = kind is None
        finally:
            if self._partial and not is_done:
                os.unlink(self._partial)

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
