"""All of it."""

from __future__ import annotations

from typing import Any

from pylxc.services.inventory import cpu, devices, memory, network, storage, system


def collect() -> dict[str, Any]:
    """Return the wire's Resources."""
    return {
        "cpu": cpu.collect(),
        "memory": memory.collect(),
        "gpu": devices.gpu(),
        "network": network.collect(),
        "storage": storage.collect(),
        "usb": devices.usb(),
        "pci": devices.pci(),
        "system": system.collect(),
    }
