"""PCI and USB devices, and graphics cards."""

from __future__ import annotations

from typing import Any

from pylxc.services.inventory import sysfs
from pylxc.services.inventory.sysfs import entries, number, read

_PCI = "/sys/bus/pci/devices"
_USB = "/sys/bus/usb/devices"
_DRM = "/sys/class/drm"
_USB_CLASSES = {
    0x00: "Use class information in the Interface Descriptors",
    0x01: "Audio",
    0x02: "Communications and CDC Control",
    0x03: "HID (Human Interface Device)",
    0x05: "Physical",
    0x06: "Image",
    0x07: "Printer",
    0x08: "Mass Storage",
    0x09: "Hub",
    0x0A: "CDC-Data",
    0x0B: "Smart Card",
    0x0D: "Content Security",
    0x0E: "Video",
    0xE0: "Wireless Controller",
    0xEF: "Miscellaneous",
    0xFE: "Application Specific",
    0xFF: "Vendor Specific",
}


def pci() -> dict[str, Any]:
    """Return the wire's ResourcesPCI."""
    devices = []
    for address in entries(_PCI):
        device = f"{_PCI}/{address}"
        driver, version = sysfs.driver(device)
        group = sysfs.link_name(device, "iommu_group")
        devices.append(
            {
                "driver": driver,
                "driver_version": version,
                "numa_node": sysfs.numa_node(device),
                "pci_address": address,
                "iommu_group": int(group) if group.isdecimal() else 0,
                "vpd": {},
                **sysfs.vendor_product(device),
            }
        )
    return {"devices": devices, "total": len(devices)}


def usb() -> dict[str, Any]:
    """Return the wire's ResourcesUSB; hubs that are part of a controller are left out."""
    devices = []
    for name in entries(_USB):
        device = f"{_USB}/{name}"
        if ":" in name or name.startswith("usb"):
            continue
        vendor_id, product_id = read(device, "idVendor"), read(device, "idProduct")
        vendor, product = sysfs.names("usb", vendor_id, product_id)
        speed = read(device, "speed")
        devices.append(
            {
                "bus_address": number(device, "busnum"),
                "device_address": number(device, "devnum"),
                "interfaces": [
                    _usb_interface(f"{_USB}/{item}") for item in entries(_USB) if item.startswith(f"{name}:")
                ],
                "vendor": vendor or read(device, "manufacturer"),
                "vendor_id": vendor_id,
                "product": product or read(device, "product"),
                "product_id": product_id,
                "speed": float(speed) if speed.replace(".", "", 1).isdecimal() else 0.0,
            }
        )
    return {"devices": devices, "total": len(devices)}


def gpu() -> dict[str, Any]:
    """Return the wire's ResourcesGPU: the cards that have a driver with DRM."""
    cards = []
    for name in entries(_DRM):
        if not name.removeprefix("card").isdecimal():
            continue
        device = f"{_DRM}/{name}/device"
        driver, version = sysfs.driver(device)
        address = sysfs.pci_address(device)
        card: dict[str, Any] = {
            "driver": driver,
            "driver_version": version,
            "drm": _drm(name, device),
            "numa_node": sysfs.numa_node(device),
        }
        if address:
            card |= {"pci_address": address, **sysfs.vendor_product(f"{_PCI}/{address}")}
        if on_usb := sysfs.usb_address(device):
            card["usb_address"] = on_usb
        cards.append(card)
    return {"cards": cards, "total": len(cards)}


def _drm(name: str, device: str) -> dict[str, Any]:
    drm: dict[str, Any] = {
        "id": int(name.removeprefix("card")),
        "card_name": name,
        "card_device": read(_DRM, name, "dev"),
    }
    for other in entries(device, "drm"):
        if other.startswith("controlD"):
            drm |= {"control_name": other, "control_device": read(_DRM, other, "dev")}
        elif other.startswith("renderD"):
            drm |= {"render_name": other, "render_device": read(_DRM, other, "dev")}
    return drm


def _usb_interface(path: str) -> dict[str, Any]:
    driver, version = sysfs.driver(path)
    class_id = int(read(path, "bInterfaceClass") or "0", 16)
    subclass_id = int(read(path, "bInterfaceSubClass") or "0", 16)
    return {
        "class": _USB_CLASSES.get(class_id, ""),
        "class_id": class_id,
        "driver": driver,
        "driver_version": version,
        "number": int(read(path, "bInterfaceNumber") or "0", 16),
        "subclass": "",
        "subclass_id": subclass_id,
    }
