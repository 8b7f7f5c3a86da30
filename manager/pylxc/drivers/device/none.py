"""Devices of type none: they mask one of the same name that a profile gives."""

from __future__ import annotations

from pylxc.drivers.device.driver import DeviceDriver


class NoneDriver(DeviceDriver):
    """See `DeviceDriver`: nothing is to be done for it."""
