"""Descriptors on the event loop: read and write pipes and terminals without a thread."""

from __future__ import annotations

import asyncio
import os

CHUNK = 1 << 18


class Flag:
    """An event that ends waits; an `asyncio.Event` would need a task for each of them."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: set[asyncio.Future[bool]] = set()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def set(self) -> None:
        """Set it, for good; on the event loop."""
        self._set = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(False)

    async def wait(self) -> None:
        """Wait until it is set."""
        if not self._set:
            await self._until(asyncio.get_running_loop().create_future())

    async def _until(self, ready: asyncio.Future[bool]) -> bool:
        self._waiting.add(ready)
        try:
            return await ready
        finally:
            self._waiting.discard(ready)


async def wait_ready(fd: int, *, write: bool = False, stop: Flag | None = None) -> bool:
    """Wait until `fd` can be read (written); return False when `stop` was set before that."""
    if stop is not None and stop.is_set():
        return False
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(True)

    (loop.add_writer if write else loop.add_reader)(fd, wake)
    try:
        return await (ready if stop is None else stop._until(ready))
    finally:
        (loop.remove_writer if write else loop.remove_reader)(fd)


async def read(fd: int, *, stop: Flag | None = None) -> bytes:
    """Return what can be read from a non-blocking `fd`, b"" at its end.

    Once `stop` is set only what is there already is read. A terminal whose other side is closed is at its end.
    """
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            if not await wait_ready(fd, stop=stop):
                return read_now(fd)
        except OSError:
            return b""


def read_now(fd: int) -> bytes:
    """Return what is there already of a non-blocking `fd`, b"" when nothing is."""
    try:
        return os.read(fd, CHUNK)
    except OSError:
        return b""


async def write(fd: int, data: bytes, *, stop: Flag | None = None) -> bool:
    """Write all of `data` to a non-blocking `fd`; return False when nobody reads it any more or `stop` was set.

    Nothing is written once `stop` is set: `fd` may be closed by then, and its number another file's.
    """
    view = memoryview(data)
    while view:
        if stop is not None and stop.is_set():
            return False
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            if not await wait_ready(fd, write=True, stop=stop):
                return False
        except OSError:
            return False
    return True
