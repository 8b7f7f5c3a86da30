"""What guests are told of changes."""

from __future__ import annotations

import json
from typing import Any

from pylxc.services.guests.events import GuestEvents
from pylxc.services.instances.expand import Record
from tests.support.records import record

NIC = {"type": "nic", "nictype": "bridged", "parent": "br0"}


def told(types: set[str], before: Record, after: Record) -> list[dict[str, Any]]:
    bus = GuestEvents()
    listener = bus.subscribe("c1", frozenset(types), lambda _: None)
    bus.changed(before, after)
    bus.unsubscribe(listener)
    bus.changed(before, after)
    return [json.loads(text)["metadata"] for text in listener.take()]


def test_only_what_a_guest_may_see() -> None:
    before = record("c1", {"user.a": "1", "limits.cpu": "1", "volatile.x": "1"}, {})
    after = record("c1", {"cloud-init.user-data": "2", "limits.cpu": "2", "volatile.x": "2"}, {})
    assert told({"config", "device"}, before, after) == [
        {"key": "cloud-init.user-data", "old_value": "", "value": "2"},
        {"key": "user.a", "old_value": "1", "value": ""},
    ]
    assert told({"device"}, before, after) == []


def test_devices_in_lxds_order() -> None:
    before = record("c1", {}, {"a": NIC, "b": NIC, "c": NIC, "d": NIC})
    limited = {**NIC, "limits.max": "1Mbit"}
    after = record("c1", {}, {"b": {**NIC, "parent": "br1"}, "c": limited, "d": NIC, "e": NIC})
    actions = [(item["action"], item["name"]) for item in told({"device"}, before, after)]
    assert actions == [("removed", "a"), ("removed", "b"), ("updated", "c"), ("added", "b"), ("added", "e")]
