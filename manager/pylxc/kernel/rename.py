"""Two names that change places. See: rename(2)."""

from __future__ import annotations

from pylxc.kernel.libc import AT_FDCWD, syscall

_RENAME_EXCHANGE = 2


def exchange(first: str, second: str) -> None:
    """Let two paths of one file system change places, at one moment.

    Raises:
        OSError: ENOENT when one is missing; EINVAL when the file system cannot.
    """
    syscall("renameat2", AT_FDCWD, first, AT_FDCWD, second, _RENAME_EXCHANGE, path=second)
