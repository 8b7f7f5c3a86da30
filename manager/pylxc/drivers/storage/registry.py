"""Storage drivers by name; one more driver is one more file and one more line here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from pylxc.drivers.storage.driver import Info, StorageDriver
from pylxc.errors import BadRequest

_DRIVERS = {"btrfs": "pylxc.drivers.storage.btrfs:BtrfsDriver", "dir": "pylxc.drivers.storage.dir:DirDriver"}


def names() -> list[str]:
    """Return the names of the drivers."""
    return sorted(_DRIVERS)


def infos() -> list[Info]:
    """Return what each driver is."""
    return [_class(name).info for name in names()]


def load(name: str, path: str, config: Mapping[str, str]) -> StorageDriver:
    """Return the driver `name` over a pool's directory.

    Raises:
        BadRequest: there is no such driver.
    """
    return _class(name)(path, config)


def _class(name: str) -> type[StorageDriver]:
    if name not in _DRIVERS:
        raise BadRequest(f"Unknown storage driver {name!r}", hint=f"one of {', '.join(names())}")
    module, _, attribute = _DRIVERS[name].partition(":")
    found: type[StorageDriver] = getattr(import_module(module), attribute)
    return found
