"""Reading /sys: small files, links, ids."""

from __future__ import annotations

import os
import re
from functools import cache

_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")


def read(*path: str) -> str:
    """Return a file's text without blanks around it, "" when it cannot be read (many have no value just now)."""
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def number(*path: str, default: int = 0) -> int:
    """Return a file's number, decimal or 0x; `default` when it has none."""
    try:
        return int(read(*path), 0)
    except ValueError:
        return default


def entries(*path: str) -> list[str]:
    """Return the names in a directory, sorted; none when it is not there."""
    try:
        return sorted(os.listdir(os.path.join(*path)))
    except OSError:
        return []


def link_name(*path: str) -> str:
    """Return the last part of what a link points to, "" when it is not there."""
    try:
        return os.path.basename(os.readlink(os.path.join(*path)))
    except OSError:
        return ""


def id_list(text: str) -> set[int]:
    """Return the numbers that a kernel list names: "0-3,8"."""
    found: set[int] = set()
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdecimal():
            found.update(range(int(low), int(high or low) + 1))
    return found


def numa_node(*device: str) -> int:
    """Return a device's NUMA node; 0 where the host has none."""
    return max(0, number(*device, "numa_node"))


def driver(*device: str) -> tuple[str, str]:
    """Return the name and version of a device's driver; modules without a version of their own have the kernel's."""
    name = link_name(*device, "driver")
    if not name:
        return "", ""
    module = link_name(*device, "driver", "module") or name
    return name, read("/sys/module", module, "version") or os.uname().release


def pci_address(device: str) -> str:
    """Return the address of the PCI device that `device` is or is on, "" for none."""
    found = _ADDRESS.findall(os.path.realpath(device))
    return found[-1] if found else ""


def usb_address(device: str) -> str:
    """Return `bus:device` of the USB device that `device` is on, "" for none."""
    path = os.path.realpath(device)
    while path.startswith("/sys/devices/"):
        if os.path.exists(f"{path}/busnum"):
            return f"{number(path, 'busnum')}:{number(path, 'devnum')}"
        path = os.path.dirname(path)
    return ""


def vendor_product(device: str) -> dict[str, str]:
    """Return a PCI device's ids, without 0x, and their names where the host has pci.ids."""
    vendor_id, product_id = read(device, "vendor").removeprefix("0x"), read(device, "device").removeprefix("0x")
    vendor, product = names("pci", vendor_id, product_id)
    return {"vendor_id": vendor_id, "vendor": vendor, "product_id": product_id, "product": product}


def names(bus: str, vendor_id: str, product_id: str) -> tuple[str, str]:
    """Return the names of a vendor and a product; "" where hwdata's list is not there or does not know them.

    Args:
        bus: "pci" or "usb".
        vendor_id: four hex digits.
        product_id: four hex digits.
    """
    vendors, products = _ids(bus)
    return vendors.get(vendor_id, ""), products.get((vendor_id, product_id), "")


@cache
def _ids(bus: str) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    vendors: dict[str, str] = {}
    products: dict[tuple[str, str], str] = {}
    vendor = ""
    for line in (read(f"/usr/share/misc/{bus}.ids") or read(f"/usr/share/hwdata/{bus}.ids")).splitlines():
        if line.startswith("C "):
            break  # device classes follow
        if line.startswith(("\t\t", "#")) or "  " not in line:
            continue
        key, _, name = line.strip().partition("  ")
        if line.startswith("\t"):
            products[vendor, key] = name
        else:
            vendor = key
            vendors[key] = name
    return vendors, products
