"""Profiles that ship with pylxc."""

from __future__ import annotations

from pylxc.services import builtin_profiles


def test_default_profile_is_filled_in() -> None:
    devices = builtin_profiles.devices("default", {"pool": "p", "network": "n"})
    assert devices["root"] == {"type": "disk", "path": "/", "pool": "p"}
    assert devices["eth0"] == {"type": "nic", "name": "eth0", "network": "n"}


def test_device_without_its_network_is_left_out() -> None:
    assert list(builtin_profiles.devices("default", {"pool": "p"})) == ["root"]
