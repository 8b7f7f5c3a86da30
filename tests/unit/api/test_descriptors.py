"""Pipes on the event loop."""

from __future__ import annotations

import asyncio
import os

from pylxc.api import descriptors


def test_nothing_is_written_after_the_end() -> None:
    """The descriptor may be another file's by then."""

    async def scenario() -> tuple[bool, bool]:
        stop = descriptors.Flag()
        before = await descriptors.write(sink, b"a", stop=stop)
        stop.set()
        return before, await descriptors.write(sink, b"b", stop=stop)

    source, sink = os.pipe()
    os.set_blocking(sink, False)
    try:
        assert asyncio.run(scenario()) == (True, False)
        assert os.read(source, 10) == b"a"
    finally:
        os.close(source)
        os.close(sink)
