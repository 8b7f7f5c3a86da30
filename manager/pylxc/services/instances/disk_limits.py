"""From `limits.read`, `limits.write` and `limits.max` of disks to limits of the block devices below them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from pylxc.errors import BadRequest
from pylxc.kernel import blockdev
from pylxc.runtime.spec import IoLimit
from pylxc.units import parse_bytes

KEYS = ("limits.read", "limits.write", "limits.max")

Devices = Mapping[str, Mapping[str, str]]


def of(devices: Devices, pool_path: Callable[[str], str]) -> tuple[IoLimit, ...]:
    """Return the limits of block devices that an instance's disks come to.

    Several disks on one block device get the average of their limits, as LXD has it: the kernel knows one for each.

    Args:
        devices: expanded.
        pool_path: returns the directory of a storage pool.

    Raises:
        BadRequest: the block device below a disk with limits cannot be told.
    """
    rates: dict[str, dict[str, list[int]]] = {}
    for name, device in devices.items():
        if device.get("type") != "disk" or not any(device.get(key) for key in KEYS):
            continue
        path = pool_path(device["pool"]) if device.get("pool") else device.get("source", "")
        if not os.path.exists(path):
            continue  # it is the disk's matter whether it has to be there
        try:
            disk = blockdev.disk_of(path)
        except (LookupError, OSError) as error:
            raise BadRequest(f"The limits of disk {name!r} cannot be applied: {error}") from error
        for field, value in _rates(device):
            rates.setdefault(disk, {}).setdefault(field, []).append(value)
    return tuple(
        IoLimit(device=disk, **{field: sum(values) // len(values) for field, values in fields.items()})
        for disk, fields in sorted(rates.items())
    )


def are_changed(before: Devices, after: Devices) -> bool:
    """Return whether the limits of any disk differ."""
    return _limited(before) != _limited(after)


def _limited(devices: Devices) -> list[Mapping[str, str]]:
    return [device for device in devices.values() if any(device.get(key) for key in KEYS)]


def _rates(device: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return field and value of the limits of a disk; `limits.max` holds for both directions."""
    most = device.get("limits.max")
    found = []
    for direction in ("read", "write"):
        value = most or device.get(f"limits.{direction}")
        if value and value.endswith("iops"):
            found.append((f"{direction}_iops", int(value.removesuffix("iops"))))
        elif value and (count := parse_bytes(value)):
            found.append((f"{direction}_bytes", count))
    return found
