"""Network drivers by type; one more driver is one more file and one more line here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from pylxc.drivers.network.driver import NetworkDriver
from pylxc.drivers.network.firewall import Firewall
from pylxc.errors import BadRequest
from pylxc.kernel.netlink import Netlink

_DRIVERS = {"bridge": "pylxc.drivers.network.bridge:BridgeDriver"}
_LAN = "pylxc.drivers.network.lan:LanDriver"


def types() -> list[str]:
    """Return the network types that there are."""
    return sorted(_DRIVERS)


def load(
    kind: str, name: str, config: Mapping[str, str], directory: str, netlink: Netlink, firewall: Firewall
) -> NetworkDriver:
    """Return the driver of a network of type `kind`; a bridge on the host's own network has one of its own.

    Raises:
        BadRequest: there is no such type.
    """
    if kind not in _DRIVERS:
        raise BadRequest(f"Network type {kind!r} is not supported", hint=f"one of {', '.join(types())}")
    path = _LAN if kind == "bridge" and config.get("lan.interface") else _DRIVERS[kind]
    module, _, attribute = path.partition(":")
    driver: NetworkDriver = getattr(import_module(module), attribute)(name, directory, netlink, firewall)
    return driver
