from __future__ import annotations

from pylxc.services.instances.snapshots import restored_config


def test_what_only_the_present_knows() -> None:
    then = {
        "user.x": "then",
        "user.hwaddr": "then",
        "volatile.apply_template": "create",
        "volatile.eth0.hwaddr": "00:16:3e:00:00:01",
        "volatile.eth1.hwaddr": "00:16:3e:00:00:02",
        "volatile.uuid": "another's",
    }
    present = {
        "user.hwaddr": "now",
        "volatile.eth0.hwaddr": "00:16:3e:00:00:03",
        "volatile.eth9.hwaddr": "00:16:3e:00:00:09",
        "volatile.uuid": "own",
        "volatile.last_state.power": "RUNNING",
    }
    assert restored_config(then, present) == {
        "user.x": "then",
        "user.hwaddr": "then",
        "volatile.eth0.hwaddr": "00:16:3e:00:00:03",
        "volatile.eth1.hwaddr": "00:16:3e:00:00:02",
        "volatile.uuid": "own",
        "volatile.last_state.power": "RUNNING",
    }
