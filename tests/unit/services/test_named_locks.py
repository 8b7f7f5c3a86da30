"""Locks that several share or one holds alone."""

from __future__ import annotations

import threading

import pytest

from pylxc.services.storage.locks import NamedLocks


def test_shared_by_many_and_by_nobody_beside_one() -> None:
    locks = NamedLocks()
    with locks.shared("a"), locks.shared("a", 0):
        pass
    with locks.exclusive("b"), pytest.raises(TimeoutError), locks.shared("b", 0.01):
        pass
    with locks.exclusive("a"), locks.shared("b", 0):
        pass


def test_one_waits_for_all_who_share() -> None:
    locks, order = NamedLocks(), list[str]()
    begun = threading.Event()

    def alone() -> None:
        begun.set()
        with locks.exclusive("a"):
            order.append("alone")

    thread = threading.Thread(target=alone)
    with locks.shared("a"):
        with locks.shared("a"):
            thread.start()
            begun.wait()
        order.append("shared")
    thread.join()
    assert order == ["shared", "alone"]
