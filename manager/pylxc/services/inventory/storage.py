"""Disks and their partitions; bytes."""

from __future__ import annotations

import os
from typing import Any

from pylxc.services.inventory import sysfs
from pylxc.services.inventory.sysfs import entries, number, read

_BLOCK = "/sys/class/block"
_SECTOR = 512
"""Bytes; /sys counts in these, whatever the disk's own sectors are."""


def collect() -> dict[str, Any]:
    """Return the wire's ResourcesStorage: block devices with hardware (or a hypervisor's) behind them."""
    links = _links()
    disks = []
    for name in entries(_BLOCK):
        path = f"{_BLOCK}/{name}"
        if os.path.exists(f"{path}/partition") or not os.path.exists(f"{path}/device"):
            continue
        if os.path.realpath(path).startswith("/sys/devices/virtual/"):
            continue
        disks.append(_disk(name, path, links))
    return {"disks": disks, "total": sum(1 + len(disk["partitions"]) for disk in disks)}


def _disk(name: str, path: str, links: dict[tuple[str, str], str]) -> dict[str, Any]:
    device = f"{path}/device"
    rotating = read(path, "queue", "rotational") == "1"
    disk: dict[str, Any] = {
        "id": name,
        "device": read(path, "dev"),
        "model": read(device, "model"),
        "type": _type(name, path),
        "read_only": read(path, "ro") == "1",
        "size": number(path, "size") * _SECTOR,
        "removable": read(path, "removable") == "1",
        "numa_node": sysfs.numa_node(device),
        "block_size": number(path, "queue", "physical_block_size"),
        "firmware_version": read(device, "firmware_rev") or read(device, "rev"),
        "rpm": 1 if rotating else 0,
        "serial": read(device, "serial") or read(path, "serial"),
        "partitions": [_partition(name, part) for part in entries(path) if os.path.exists(f"{path}/{part}/partition")],
    }
    optional = {
        "wwn": read(path, "wwid") or read(device, "wwid"),
        "device_id": links.get(("by-id", name), ""),
        "device_path": links.get(("by-path", name), ""),
        "pci_address": sysfs.pci_address(device),
        "usb_address": sysfs.usb_address(device),
    }
    return disk | {key: value for key, value in optional.items() if value}


def _partition(disk: str, name: str) -> dict[str, Any]:
    path = f"{_BLOCK}/{disk}/{name}"
    return {
        "id": name,
        "device": read(path, "dev"),
        "read_only": read(path, "ro") == "1",
        "size": number(path, "size") * _SECTOR,
        "partition": number(path, "partition"),
    }


def _type(name: str, path: str) -> str:
    if sysfs.usb_address(f"{path}/device"):
        return "usb"
    if name.startswith("nvme"):
        return "nvme"
    real = os.path.realpath(path)
    for part, kind in (("/ata", "sata"), ("/virtio", "virtio")):
        if part in real:
            return kind
    return sysfs.link_name(path, "device", "subsystem")


def _links() -> dict[tuple[str, str], str]:
    """Return udev's names of disks by (kind, kernel's name)."""
    found: dict[tuple[str, str], str] = {}
    for kind in ("by-id", "by-path"):
        for link in entries("/dev/disk", kind):
            found.setdefault((kind, sysfs.link_name("/dev/disk", kind, link)), link)
    return found
