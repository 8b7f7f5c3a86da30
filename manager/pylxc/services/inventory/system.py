"""The machine as its firmware describes it."""

from __future__ import annotations

import os
from typing import Any

from pylxc.services.inventory.sysfs import entries, read

_DMI = "/sys/class/dmi/id"
_CHASSIS = {
    "1": "Other",
    "2": "Unknown",
    "3": "Desktop",
    "4": "Low Profile Desktop",
    "5": "Pizza Box",
    "6": "Mini Tower",
    "7": "Tower",
    "8": "Portable",
    "9": "Laptop",
    "10": "Notebook",
    "11": "Hand Held",
    "13": "All in One",
    "14": "Sub Notebook",
    "17": "Main Server Chassis",
    "23": "Rack Mount Chassis",
    "28": "Blade",
    "30": "Tablet",
    "31": "Convertible",
    "35": "Mini PC",
}
"""See: DMTF DSP0134, system enclosure or chassis types"""


def collect() -> dict[str, Any]:
    """Return the wire's ResourcesSystem; empty texts where there is no DMI (many virtual machines, ARM boards)."""
    return {
        "uuid": read(_DMI, "product_uuid"),
        "vendor": read(_DMI, "sys_vendor"),
        "product": read(_DMI, "product_name") or read("/proc/device-tree/model").rstrip("\0"),
        "family": read(_DMI, "product_family"),
        "version": read(_DMI, "product_version"),
        "sku": read(_DMI, "product_sku"),
        "serial": read(_DMI, "product_serial"),
        "type": _type(),
        "firmware": {
            "vendor": read(_DMI, "bios_vendor"),
            "date": read(_DMI, "bios_date"),
            "version": read(_DMI, "bios_version"),
        },
        "chassis": {
            "vendor": read(_DMI, "chassis_vendor"),
            "type": _CHASSIS.get(read(_DMI, "chassis_type"), ""),
            "serial": read(_DMI, "chassis_serial"),
            "version": read(_DMI, "chassis_version"),
        },
        "motherboard": {
            "vendor": read(_DMI, "board_vendor"),
            "product": read(_DMI, "board_name"),
            "serial": read(_DMI, "board_serial"),
            "version": read(_DMI, "board_version"),
        },
    }


def _type() -> str:
    """Return container, virtual-machine or physical."""
    if os.path.exists("/run/systemd/container") or read("/proc/1/environ").startswith("container="):
        return "container"
    flags = next((line for line in read("/proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    hypervisor = read("/sys/hypervisor/type") or "hypervisor" in flags.split()
    return "virtual-machine" if hypervisor or "kvm-clock" in _clocks() else "physical"


def _clocks() -> list[str]:
    clock = "/sys/devices/system/clocksource/clocksource0"
    return read(clock, "available_clocksource").split() if entries(clock) else []
