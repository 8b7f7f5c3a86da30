from __future__ import annotations

import datetime as dt

from pylxc.services.instances.expand import Record
from pylxc.services.instances.update import with_facts


def _record(config: dict[str, str]) -> Record:
    return Record(
        id=1,
        project="default",
        name="c1",
        type="container",
        architecture="x86_64",
        description="",
        config=config,
        devices={},
        profiles=(),
        ephemeral=False,
        stateful=False,
        created_at=dt.datetime.now(dt.UTC),
        last_used_at=None,
        expanded_config=config,
        expanded_devices={},
    )


def test_what_is_written_back_says_nothing_of_a_run_that_has_ended_meanwhile() -> None:
    before = {"user.a": "1", "volatile.last_state.power": "RUNNING", "volatile.eth0.host_name": "veth1"}
    now = _record({"user.a": "2", "volatile.last_state.power": "STOPPED"})
    assert with_facts(before, now) == {"user.a": "1", "volatile.last_state.power": "STOPPED"}


def test_what_is_written_back_keeps_what_a_run_has_come_to_have() -> None:
    before = {"volatile.last_state.power": "STOPPED", "volatile.uuid": "u"}
    now = _record({"volatile.last_state.power": "RUNNING", "volatile.eth0.host_name": "veth1"})
    assert with_facts(before, now) == {**now.config, "volatile.uuid": "u"}
