from __future__ import annotations

import pytest

from pylxc.db.models import Profile
from pylxc.errors import BadRequest
from pylxc.services.instances.expand import expand_config, expand_devices, root_disk

ROOT = {"type": "disk", "path": "/", "pool": "default"}
PROFILES = [
    Profile(
        name="a", config={"user.x": "1", "user.y": "1"}, devices={"root": ROOT, "eth0": {"type": "nic", "mtu": "9"}}
    ),
    Profile(name="b", config={"user.y": "2", "user.z": "2"}, devices={"eth0": {"type": "none"}}),
]


def test_later_profiles_win_and_the_instance_wins_over_all() -> None:
    assert expand_config(PROFILES, {"user.z": "3"}) == {"user.x": "1", "user.y": "2", "user.z": "3"}


def test_devices_are_replaced_whole() -> None:
    assert expand_devices(PROFILES, {}) == {"root": ROOT, "eth0": {"type": "none"}}
    assert expand_devices(PROFILES[:1], {"eth0": {"type": "nic"}})["eth0"] == {"type": "nic"}


def test_root_disk() -> None:
    assert root_disk({"r": ROOT}) == ("r", ROOT)
    for devices in ({}, {"r": ROOT, "s": ROOT}, {"r": {"type": "disk", "path": "/"}}, {"r": {**ROOT, "source": "/x"}}):
        with pytest.raises(BadRequest):
            root_disk(devices)
