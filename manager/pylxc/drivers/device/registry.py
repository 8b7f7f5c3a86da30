"""Device drivers by type, NICs by nictype; one more driver is one more file and one more line here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from pylxc.config import device as tables
from pylxc.drivers.device.driver import DeviceDriver
from pylxc.errors import NotSupported

_DRIVERS = {
    "disk": "pylxc.drivers.device.disk:DiskDriver",
    "nic-bridged": "pylxc.drivers.device.nic_bridged:BridgedDriver",
    "nic-ipvlan": "pylxc.drivers.device.nic_ipvlan:IpvlanDriver",
    "nic-macvlan": "pylxc.drivers.device.nic_macvlan:MacvlanDriver",
    "nic-p2p": "pylxc.drivers.device.nic_p2p:P2pDriver",
    "nic-physical": "pylxc.drivers.device.nic_physical:PhysicalDriver",
    "nic-routed": "pylxc.drivers.device.nic_routed:RoutedDriver",
    "none": "pylxc.drivers.device.none:NoneDriver",
    "proxy": "pylxc.drivers.device.proxy:ProxyDriver",
    "unix-block": "pylxc.drivers.device.unix:UnixBlockDriver",
    "unix-char": "pylxc.drivers.device.unix:UnixCharDriver",
}


def find(device: Mapping[str, str]) -> DeviceDriver:
    """Return the driver of a device.

    Raises:
        BadRequest: its type is missing or unknown.
        NotSupported: the dialect has its type and there is no driver.
    """
    tables.table(device)
    kind = device["type"]
    if kind == "nic":
        kind = f"nic-{nictype(device)}"
    if kind not in _DRIVERS:
        what = f"NIC devices with nictype={nictype(device)}" if kind.startswith("nic-") else f"Devices of type {kind}"
        raise NotSupported(f"{what} are not supported")
    return _load(kind)


def nictype(device: Mapping[str, str]) -> str:
    """Return a NIC's nictype; one that names a managed network is on a bridge."""
    return device.get("nictype") or "bridged"


@cache
def _load(kind: str) -> DeviceDriver:
    module, _, attribute = _DRIVERS[kind].partition(":")
    driver: DeviceDriver = getattr(import_module(module), attribute)()
    return driver
