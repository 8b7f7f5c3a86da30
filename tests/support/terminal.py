"""A command on a terminal of its own, typed to and read from as a person would."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    """A child on a pty: `with Terminal(command, env) as terminal: terminal.expect("$ ")`."""

    def __init__(self, command: list[str], env: dict[str, str], *, columns: int = 100, rows: int = 30) -> None:
        self._master, slave = os.openpty()
        self.resize(columns, rows)
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            env={**env, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Send keys."""
        os.write(self._master, text.encode())

    def expect(self, text: str, timeout: float = 20) -> str:
        """Read until `text` comes; return what was read up to its end and forget it.

        Raises:
            AssertionError: it does not come in time, or the command ends before.
        """
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            assert self._read(deadline), f"{text!r} did not come; read so far: {self.seen!r}"
        end = self.seen.index(text) + len(text)
        read, self.seen = self.seen[:end], self.seen[end:]
        return read

    def read(self, seconds: float) -> str:
        """Read for some time; return all that came and has not been expected."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        return self.seen

    def wait(self, timeout: float = 20) -> int:
        """Read to the end; return the command's exit status."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def has_ended(self, seconds: float) -> bool:
        """Read for some time, or until the command ends; return whether it has."""
        try:
            self.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        self._process.send_signal(number)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last holder of the other side has closed it
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)
