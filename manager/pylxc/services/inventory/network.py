"""Network cards and their ports."""

from __future__ import annotations

import os
from typing import Any

from pylxc.services.inventory import sysfs
from pylxc.services.inventory.sysfs import entries, number, read

_NET = "/sys/class/net"
_PROTOCOLS = {1: "ethernet", 24: "ethernet", 32: "infiniband"}
"""ARPHRD types by number. See: linux/if_arp.h"""


def collect() -> dict[str, Any]:
    """Return the wire's ResourcesNetwork: what has hardware (or a hypervisor's) behind it; a card per device."""
    cards: dict[str, dict[str, Any]] = {}
    for name in entries(_NET):
        device = f"{_NET}/{name}/device"
        if not os.path.exists(device):
            continue
        card = cards.setdefault(os.path.realpath(device), _card(device))
        card["ports"].append(_port(name, len(card["ports"])))
    return {"cards": list(cards.values()), "total": len(cards)}


def _card(device: str) -> dict[str, Any]:
    # virtio's network device is a child of its PCI device; both have a driver, the card's is the PCI one
    address = sysfs.pci_address(device)
    driver, version = sysfs.driver(device)
    card: dict[str, Any] = {
        "driver": driver,
        "driver_version": version,
        "ports": [],
        "numa_node": sysfs.numa_node(device),
    }
    if address:
        card |= {"pci_address": address, **sysfs.vendor_product(f"/sys/bus/pci/devices/{address}")}
    if on_usb := sysfs.usb_address(device):
        card["usb_address"] = on_usb
    return card


def _port(name: str, index: int) -> dict[str, Any]:
    path = f"{_NET}/{name}"
    up = read(path, "carrier") == "1"
    port: dict[str, Any] = {
        "id": name,
        "address": read(path, "address"),
        "port": number(path, "dev_port", default=index),
        "protocol": _PROTOCOLS.get(number(path, "type"), "unknown"),
        "auto_negotiation": False,
        "link_detected": up,
    }
    if up and (speed := number(path, "speed")) > 0:
        port["link_speed"] = speed
    if up and read(path, "duplex") in ("half", "full"):
        port["link_duplex"] = read(path, "duplex")
    return port
