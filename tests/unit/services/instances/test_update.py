from __future__ import annotations

from pylxc.services.instances.update import with_facts
from tests.support.records import record


def test_what_is_written_back_says_nothing_of_a_run_that_has_ended_meanwhile() -> None:
    before = {"user.a": "1", "volatile.last_state.power": "RUNNING", "volatile.eth0.host_name": "veth1"}
    now = record("c1", {"user.a": "2", "volatile.last_state.power": "STOPPED"})
    assert with_facts(before, now) == {"user.a": "1", "volatile.last_state.power": "STOPPED"}


def test_what_is_written_back_keeps_what_a_run_has_come_to_have() -> None:
    before = {"volatile.last_state.power": "STOPPED", "volatile.uuid": "u"}
    now = record("c1", {"volatile.last_state.power": "RUNNING", "volatile.eth0.host_name": "veth1"})
    assert with_facts(before, now) == {**now.config, "volatile.uuid": "u"}
