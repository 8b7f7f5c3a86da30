"""Network drivers by type; one more driver is one more file and one more line here."""

from __future__ import annotations

from importlib import import_module

from pylxc.drivers.network.driver import NetworkDriver
from pylxc.drivers.network.firewall import Firewall
from pylxc.errors import BadRequest
from pylxc.kernel.netlink import Netlink

_DRIVERS = {"bridge": "pylxc.drivers.network.bridge:BridgeDriver"}


def types() -> list[str]:
    """Return the network types that there are."""
    return sorted(_DRIVERS)


def load(kind: str, name: str, directory: str, netlink: Netlink, firewall: Firewall) -> NetworkDriver:
    """Return the driver of a network of type `kind`.

    Raises:
        BadRequest: there is no such type.
    """
    if kind not in _DRIVERS:
        raise BadRequest(f"Network type {kind!r} is not supported", hint=f"one of {', '.join(types())}")
    module, _, attribute = _DRIVERS[kind].partition(":")
    driver: NetworkDriver = getattr(import_module(module), attribute)(name, directory, netlink, firewall)
    return driver
