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


def delete_inside(context: Context, netlink: Netlink) -> None:
    """Delete the interface of a NIC in a container that runs; one that is gone, or the container, is no error.

    Raises:
        Internal: the kernel refuses.
    """
    try:
        with netlink.inside(context.pid) as inside:
            if found := find_inside(context, inside):
                inside.delete(found.name)
    except FileNotFoundError:  # the container has just ended
        return
    except OSError as error:
        raise failure(context.name, error) from error


def find_inside(context: Context, inside: Netlink) -> Link | None:
    """Return the interface of a NIC in its container, whose root may have renamed it; None when there is none."""
    name = context.device.get("name") or context.volatile("name")
    hwaddr = (context.device.get("hwaddr") or context.volatile("hwaddr")).lower()
    links = {link.name: link for link in inside.links() if not link.loopback}
    return links.get(name) or next((link for link in links.values() if link.hwaddr == hwaddr), None)


def failure(device: str, error: OSError) -> Internal:
    """Return the error for an interface that the kernel refused."""
    reason = error.strerror or os.strerror(error.errno or 0)
    return Internal(f"Failed attaching network device {device!r}: {reason} ({error.filename})")
