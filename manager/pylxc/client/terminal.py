"""The caller's terminal: its size, and raw mode that is always undone."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def size(fd: int) -> tuple[int, int]:
    """Return columns and rows of the terminal behind `fd`, (0, 0) when it is none or does not say."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return columns, rows


def set_size(fd: int, columns: int, rows: int) -> None:
    """Set the window size of the pty behind `fd`; the kernel sends SIGWINCH to its foreground."""
    import fcntl
    import termios

    fields = (rows, columns, 0, 0)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, b"".join(field.to_bytes(2, sys.byteorder) for field in fields))


class Raw:
    """Puts the terminal behind `fd` into raw mode for the time of a `with` block; nothing when it is no terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> Raw:
        if os.isatty(self._fd):
            import termios
            import tty

            self._saved = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSANOW)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            import termios

            # Output that is still on its way is shown as it was written; input typed ahead stays.
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
