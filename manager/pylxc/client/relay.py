"""Bytes from one file descriptor to another, by splice(2) where the kernel can, driven by one poll loop."""

from __future__ import annotations

import os
import select
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 16
_SPLICE = 1 << 20
_F_SETPIPE_SZ = 1031
_EINVAL = 22
_GONE = frozenset({5, 32, 104})  # EIO (hung-up terminal), EPIPE, ECONNRESET: the other side ended, no error of ours
_NULL = os.makedev(1, 3)


def may_be_passed(fd: int) -> bool:
    """Return whether `fd` may be handed to a process of a guest as it is.

    Only pipes and /dev/null: through a terminal the guest could type into the host's session (TIOCSTI), through a
    directory or a socket reach further files, and a regular file could be opened again with other rights through
    /proc/self/fd. A pipe that somebody made non-blocking is kept back, too: few programs expect that of their stdin.
    """
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode):
        return os.get_blocking(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL


def make_pipe() -> tuple[int, int]:
    """Return a pipe (read end, write end) of 1 MiB where the host allows that size."""
    import fcntl

    read_end, write_end = os.pipe()
    try:
        fcntl.fcntl(write_end, _F_SETPIPE_SZ, _SPLICE)
    except OSError:
        return read_end, write_end  # beyond the user's share of pipe memory: 64 KiB do as well
    return read_end, write_end


def _poll(fd: int, events: int, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout))


class Relay:
    """Copies `source` to `sink` until `source` ends or `sink` takes no more.

    Args:
        source: read from; made non-blocking when `own_source`.
        sink: written to.
        own_source: the source is ours, to be made non-blocking and closed in the end; otherwise the sink is.
    """

    def __init__(self, source: int, sink: int, *, own_source: bool) -> None:
        self.source = source
        self.sink = sink
        self.own = source if own_source else sink
        self.done = False
        self._watch_sink = not own_source
        self._splice = True
        self._pending = b""
        self._sink_full = False
        os.set_blocking(self.own, False)

    def interest(self) -> Iterator[tuple[int, int]]:
        """Yield (descriptor, poll events) that the relay waits for."""
        if self.done:
            return
        if self._sink_full:
            yield self.sink, select.POLLOUT
            return
        yield self.source, select.POLLIN
        if self._watch_sink:
            yield self.sink, 0  # POLLERR comes unasked: nobody reads any more, even while the source is silent

    def step(self, fd: int, events: int) -> None:
        """Act on poll's `events` for `fd`, one of those that `interest` named."""
        if fd == self.sink and not self._sink_full:
            if events & select.POLLERR:
                self.close()
            return
        was_full, self._sink_full = self._sink_full, False
        try:
            if not self._move():
                self.close()
        except BlockingIOError:
            # One side is not ready: the other one than the one that poll has just reported.
            self._sink_full = bool(self._pending) or not was_full
        except OSError as error:
            self.close()
            if error.errno not in _GONE:
                raise

    def _move(self) -> int:
        if self._splice and not self._pending:
            try:
                return os.splice(self.source, self.sink, _SPLICE)
            except BlockingIOError:
                raise
            except OSError as error:
                if error.errno != _EINVAL:
                    raise
                self._splice = False  # a terminal, a file opened for appending, ...
        if not self._pending:
            self._pending = os.read(self.source, _BLOCK)
            if not self._pending:
                return 0
        moved = 0
        while self._pending:
            count = os.write(self.sink, self._pending)
            self._pending = self._pending[count:]
            moved += count
        return moved

    def drain(self) -> None:
        """Move what is already in our pipe; for the time after the process has ended."""
        while not self.done:
            try:
                if not self._move():
                    break
            except BlockingIOError:
                if not self._pending and not _poll(self.source, select.POLLIN, 0):
                    break
                _poll(self.sink, select.POLLOUT, None)
            except OSError as error:
                self.close()
                if error.errno not in _GONE:
                    raise
        self.close()

    def close(self) -> None:
        """Close our end; the other side sees end of file, or EPIPE."""
        if not self.done:
            self.done = True
            os.close(self.own)


class Loop:
    """Polls relays and further descriptors together."""

    def __init__(self, relays: list[Relay]) -> None:
        self.relays = relays

    def wait(self, *further: int) -> set[int]:
        """Let the relays work until one of the `further` descriptors is readable (or closed); return those that are."""
        while True:
            poll = select.poll()
            for fd in further:
                poll.register(fd, select.POLLIN)
            interests = [(relay, fd, events) for relay in self.relays for fd, events in relay.interest()]
            for _, fd, events in interests:
                poll.register(fd, events)
            ready = dict(poll.poll())
            for relay, fd, _ in interests:
                if fd in ready and not relay.done:
                    relay.step(fd, ready[fd])
            if hits := {fd for fd in further if fd in ready}:
                return hits
