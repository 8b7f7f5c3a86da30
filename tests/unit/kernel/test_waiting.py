from __future__ import annotations

import os
import queue
import select

import pytest

from pylxc.kernel.waiting import Waiting


def test_tells_what_is_ready_until_it_is_closed() -> None:
    told: queue.Queue[set[int] | None] = queue.Queue()
    reading, writing = os.pipe()
    other, others = os.pipe()

    def run(waiting: Waiting) -> None:
        while (ready := waiting.wait(None, [other])) is not None:
            for fd in ready:
                os.read(fd, 1)
            told.put(ready)
        told.put(None)
        assert waiting.ended

    waiting = Waiting("test", run, {reading: select.POLLIN})
    os.write(writing, b"x")
    assert told.get(timeout=10) == {reading}
    os.write(others, b"x")
    assert told.get(timeout=10) == {other}
    waiting.wake()
    assert told.get(timeout=10) == set()
    waiting.close()
    assert told.get(timeout=10) is None
    for fd in (reading, writing, other, others):
        os.close(fd)


def test_waits_no_longer_than_it_is_told_to_and_has_nobody_elses_descriptor_afterwards() -> None:
    told: queue.Queue[set[int] | None] = queue.Queue()
    waiting = Waiting("test", lambda self: told.put(self.wait(0.01)), {})
    assert told.get(timeout=10) == set()
    number = waiting._wake
    waiting.close()
    successor = os.eventfd(0, os.EFD_NONBLOCK)
    os.dup2(successor, number)
    waiting.wake()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(successor)
    os.close(number)
    if successor != number:
        os.close(successor)
