from __future__ import annotations

from pylxc.services.instances.boot import batches
from pylxc.services.instances.expand import Record
from tests.support.records import record


def _instance(name: str, priority: int = 0, delay: int = 0) -> Record:
    config = {"boot.autostart.priority": str(priority), "boot.autostart.delay": str(delay)}
    return record(name, config)


def test_what_is_started_at_the_same_time() -> None:
    records = [_instance("d"), _instance("c", -1), _instance("b", 5), _instance("a"), _instance("e", 5)]
    assert [[found.name for found in batch] for batch in batches(records)] == [["b", "e"], ["a", "d"], ["c"]]


def test_what_follows_one_with_a_delay_waits_for_it() -> None:
    records = [_instance("a"), _instance("b", delay=2), _instance("c"), _instance("d", delay=1), _instance("e", 9, 3)]
    assert [[found.name for found in batch] for batch in batches(records)] == [["e"], ["a", "b"], ["c", "d"]]
