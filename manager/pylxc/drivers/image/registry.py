"""Image drivers by protocol; one more driver is one more file and one more line here."""

from __future__ import annotations

from importlib import import_module

from pylxc.drivers.image.base import Host, ImageDriver
from pylxc.errors import NotSupported

_DRIVERS = {
    "direct": "pylxc.drivers.image.direct:DirectDriver",
    "lxd": "pylxc.drivers.image.lxd:LxdDriver",
    "recipe": "pylxc.drivers.image.recipe:RecipeDriver",
    "simplestreams": "pylxc.drivers.image.simplestreams:SimplestreamsDriver",
}


class ImageDrivers:
    """The drivers of one host, each imported and made when it is first asked for."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._made: dict[str, ImageDriver] = {}

    def get(self, protocol: str) -> ImageDriver:
        """Return the driver of a protocol.

        Raises:
            NotSupported: there is none.
        """
        if protocol not in _DRIVERS:
            raise NotSupported(f"Images cannot be fetched by the protocol {protocol[:40]!r}", hint=", ".join(_DRIVERS))
        if protocol not in self._made:
            module, _, attribute = _DRIVERS[protocol].partition(":")
            made: ImageDriver = getattr(import_module(module), attribute)(self._host)
            return self._made.setdefault(protocol, made)
        return self._made[protocol]
