"""What all NIC drivers have in common."""

from __future__ import annotations

import os

from pylxc.drivers.device.driver import Context
from pylxc.errors import BadRequest, Internal
from pylxc.kernel.netlink import Link, Netlink


def mtu(context: Context) -> int:
    """Return the MTU that is configured for a NIC or for its network, 0 for none."""
    return int(context.device.get("mtu") or (context.network or {}).get("bridge.mtu") or 0)


def parent(name: str, netlink: Netlink) -> Link:
    """Return the host's interface that a NIC hangs on.

    Raises:
        BadRequest: it is not there.
    """
    link = netlink.find(name)
    if link is None:
        raise BadRequest(f"Parent interface {name!r} does not exist")
    return link


def failure(device: str, error: OSError) -> Internal:
    """Return the error for an interface that the kernel refused."""
    reason = error.strerror or os.strerror(error.errno or 0)
    return Internal(f"Failed attaching network device {device!r}: {reason} ({error.filename})")
