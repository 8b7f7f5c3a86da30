"""Processes held by a descriptor, so that a reused pid is never hit."""

from __future__ import annotations

import os
import select
import signal


def open_pid(pid: int) -> int:
    """Return a pidfd (close-on-exec; readable once the process has ended).

    Raises:
        ProcessLookupError: there is no such process.
    """
    return os.pidfd_open(pid)


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal; return False when the process has ended already.

    Raises:
        OSError: EPERM, EINVAL. See: pidfd_send_signal(2)
    """
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def wait(pidfd: int, timeout: float | None = None) -> bool:
    """Wait until the process has ended, `timeout` in seconds; return whether it has."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0, timeout) * 1000))
