from __future__ import annotations

import pytest

from pylxc.errors import Conflict
from pylxc.services.instances.locks import InstanceLocks


def test_second_operation_is_refused_and_named() -> None:
    locks = InstanceLocks()
    with locks.hold("c1", "start"), pytest.raises(Conflict, match='busy running a "start" operation'):
        locks.hold("c1", "delete").__enter__()
    with locks.hold("c1", "delete"):
        assert locks.holder("c1") == "delete"
    assert locks.holder("c1") is None


def test_instances_do_not_block_each_other() -> None:
    locks = InstanceLocks()
    with locks.hold("c1", "start"), locks.hold("c2", "start"):
        assert locks.holder("c2") == "start"


def test_a_forced_stop_joins_a_clean_one() -> None:
    locks = InstanceLocks()
    with locks.hold("c1", "stop"):
        with locks.hold("c1", "stop", joins=("stop",)):
            assert locks.holder("c1") == "stop"
        assert locks.holder("c1") == "stop"
    assert locks.holder("c1") is None


def test_lock_is_freed_when_the_work_fails() -> None:
    locks = InstanceLocks()
    with pytest.raises(RuntimeError), locks.hold("c1", "start"):
        raise RuntimeError
    with locks.hold("c1", "start"):
        pass
