"""NICs whose other end is just there, for whoever wants to use it."""

from __future__ import annotations

from pylxc.drivers.device import nic
from pylxc.drivers.device.nic_veth import VethDriver


class P2pDriver(VethDriver):
    """See `DeviceDriver`."""

    live = nic.LIMITS | nic.ROUTES
