"""Descriptors on the event loop: read and write pipes and terminals without a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

CHUNK = 1 << 18


async def wait_ready(fd: int, *, write: bool = False, stop: asyncio.Event | None = None) -> bool:
    """Wait until `fd` can be read (written); return False when `stop` was set before that."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add: Callable[..., None] = loop.add_writer if write else loop.add_reader
    add(fd, wake)
    stopper = asyncio.create_task(stop.wait()) if stop else None
    try:
        await asyncio.wait({ready, stopper} if stopper else {ready}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        (loop.remove_writer if write else loop.remove_reader)(fd)
        if stopper:
            stopper.cancel()
    return ready.done()


async def read(fd: int, *, stop: asyncio.Event | None = None) -> bytes:
    """Return what can be read from a non-blocking `fd`, b"" at its end.

    Once `stop` is set only what is there already is read. A terminal whose other side is closed is at its end.
    """
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            if (stop is not None and stop.is_set()) or not await wait_ready(fd, stop=stop):
                if stop is None or not stop.is_set():
                    return b""
                try:
                    return os.read(fd, CHUNK)
                except OSError:
                    return b""
        except OSError:
            return b""


async def write(fd: int, data: bytes, *, stop: asyncio.Event | None = None) -> bool:
    """Write all of `data` to a non-blocking `fd`; return False when nobody reads it any more or `stop` was set."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            if not await wait_ready(fd, write=True, stop=stop):
                return False
        except OSError:
            return False
    return True
