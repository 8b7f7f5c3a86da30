"""What cloud-init sees of an instance: when that changes, the instance is a new one to it and all its work is due."""

from __future__ import annotations

from collections.abc import Mapping

from pylxc.db.models import Config, Devices
from pylxc.services.instances.expand import Record

_KEYS = tuple(
    f"{prefix}.{name}" for prefix in ("cloud-init", "user") for name in ("user-data", "vendor-data", "network-config")
)


def is_new(before: Record, after: Record, config: Config) -> bool:
    """Return whether an instance needs another instance id.

    Args:
        before: as it was.
        after: as it shall be.
        config: its own configuration then, with the volatile keys of its devices.
    """
    if any(before.expanded_config.get(key) != after.expanded_config.get(key) for key in _KEYS):
        return True
    return _nic_names(before.expanded_devices, before.config) != _nic_names(after.expanded_devices, config)


def _nic_names(devices: Devices, config: Mapping[str, str]) -> set[str]:
    return {
        device.get("name") or config.get(f"volatile.{name}.name") or name
        for name, device in devices.items()
        if device.get("type") == "nic"
    }
