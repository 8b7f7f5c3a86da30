"""What NIC drivers have in common."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from pylxc import validate
from pylxc.drivers.device.driver import Context, HostTools, Nic
from pylxc.errors import BadRequest, Internal, NotSupported, PylxcError
from pylxc.kernel import sysctl
from pylxc.kernel.netlink import Link, Netlink
from pylxc.revert import Reverter
from pylxc.units import parse_bits

_NAME_CHARACTERS = 15
_NO_VLAN = ("", "none", "0")
_VLAN_FLAG_GVRP = 0x2
LIMITS = frozenset({"limits.ingress", "limits.egress", "limits.max"})
ROUTES = frozenset({"ipv4.routes", "ipv6.routes"})


# Configuration


def of(context: Context, *, host_name: str = "") -> Nic:
    """Return the interface that a NIC's configuration describes."""
    device = context.device
    return Nic(
        name=device.get("name") or context.volatile("name"),
        hwaddr=(device.get("hwaddr") or context.volatile("hwaddr")).lower(),
        mtu=int(device.get("mtu") or (context.network or {}).get("bridge.mtu") or 0),
        host_name=host_name,
    )


def listed(device: Mapping[str, str], key: str) -> list[str]:
    """Return the entries of a list with commas."""
    return [entry.strip() for entry in device.get(key, "").split(",") if entry.strip()]


def routes(device: Mapping[str, str]) -> list[str]:
    """Return the subnets that are routed to a NIC."""
    return [*listed(device, "ipv4.routes"), *listed(device, "ipv6.routes")]


def rate(device: Mapping[str, str], direction: str) -> int:
    """Return the limit of a `direction` (ingress, egress) in bits a second, 0 for none."""
    return parse_bits(device.get("limits.max") or device.get(f"limits.{direction}") or "0")


def require_parent(name: str, device: Mapping[str, str]) -> None:
    """Raise BadRequest when a NIC that cannot be without has no parent, or has a network in its place."""
    if device.get("network"):
        raise NotSupported(f"Networks for NICs with nictype={device['nictype']} are not supported",
                           hint="use parent=INTERFACE")  # fmt: skip
    if not device.get("parent"):
        raise BadRequest(f"Device {name!r} needs a parent")


# The host


def parent(name: str, netlink: Netlink) -> Link:
    """Return the host's interface that a NIC hangs on.

    Raises:
        BadRequest: it is not there.
    """
    link = netlink.find(name)
    if link is None:
        raise BadRequest(f"Parent interface {name!r} does not exist")
    return link


def lower(context: Context, host: HostTools, revert: Reverter) -> Link:
    """Return the interface that a NIC hangs on: the parent, or the parent's VLAN, made when it is not there.

    Args:
        context: the NIC.
        host: means.
        revert: takes how to undo what was made.

    Raises:
        BadRequest: the parent is not there.
        NotSupported: the kernel has no VLANs.
    """
    device = context.device
    above = parent(device["parent"], host.netlink)
    name = vlan_name(device)
    if not name:
        return above
    found = host.netlink.find(name)
    if found is None:
        flags = {"vlan_flags": {"flags": _VLAN_FLAG_GVRP, "mask": _VLAN_FLAG_GVRP}}
        try:
            host.netlink.add(
                name, "vlan", link=above.index, vlan_id=int(device["vlan"]), state="up",
                **(flags if validate.is_true(device.get("gvrp")) else {}),
            )  # fmt: skip
        except OSError as error:
            raise failure(context.name, error, needs="CONFIG_VLAN_8021Q") from error
        revert.add(host.netlink.delete, name)
        found = host.netlink.get(name)
    return found


def vlan_name(device: Mapping[str, str]) -> str:
    """Return the name of the interface of a NIC's VLAN on the host, empty for none."""
    vlan = device.get("vlan", "")
    return "" if vlan in _NO_VLAN or not device.get("parent") else f"{device['parent']}.{vlan}"


def check_vlan(device: Mapping[str, str]) -> None:
    """Raise BadRequest when the interface of a VLAN would have a name that the kernel does not take."""
    if len(vlan_name(device)) > _NAME_CHARACTERS:
        raise BadRequest(f"The name {vlan_name(device)!r} of the VLAN's interface has more than 15 characters")


def kept_of_vlan(context: Context, host: HostTools) -> dict[str, str]:
    """Return the volatile key that says whether `lower` is going to make the VLAN's interface; looks at the parent.

    Raises:
        BadRequest: the parent is not there, or belongs to something else.
    """
    name = vlan_name(context.device)
    above = parent(context.device["parent"], host.netlink)
    if above.master and not name:
        raise BadRequest(f"Interface {above.name!r} is part of a bridge or bond", hint="use nictype=bridged")
    if not name:
        return {}
    before = context.volatile("last_state.created")
    return {f"volatile.{context.name}.last_state.created": before or str(host.netlink.find(name) is None).lower()}


def drop_vlan(context: Context, host: HostTools) -> None:
    """Remove the interface of a VLAN that `lower` made, once nobody hangs on it."""
    name = vlan_name(context.device)
    if name and validate.is_true(context.volatile("last_state.created")) and not host.has_others(context):
        host.netlink.delete(name)


def require_forwarding(context: Context, host: HostTools) -> None:
    """Refuse a parent that packets are not forwarded on, where the host is to answer for the addresses of a NIC.

    Raises:
        BadRequest: a setting of the kernel is in the way; it is named.
    """
    name = vlan_name(context.device) or context.device["parent"]
    if host.netlink.find(name) is None:
        return  # `lower` makes it, and `forward_vlan` sets it as it has to be
    wanted = []
    if context.device.get("ipv4.address"):
        wanted = [f"net/ipv4/conf/{name}/forwarding"]
    if context.device.get("ipv6.address"):
        wanted += [f"net/ipv6/conf/{where}/{key}" for where in ("all", name) for key in ("forwarding", "proxy_ndp")]
    for key in wanted:
        if sysctl.read(key) != "1":
            kind = context.device["nictype"]
            raise BadRequest(f"nictype={kind} on a parent needs the setting {key} = 1", hint=f"sysctl -w {key}=1")


def forward_vlan(context: Context, link: Link) -> None:
    """Have packets forwarded on the interface of a VLAN, if `lower` has made it."""
    if context.volatile("last_state.created") == "true":
        for key in ("ipv4/conf/{}/forwarding", "ipv6/conf/{}/forwarding", "ipv6/conf/{}/proxy_ndp"):
            sysctl.write(f"net/{key.format(link.name)}", "1", optional=True)


# Inside


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
    nic = of(context)
    links = {link.name: link for link in inside.links() if not link.loopback}
    return links.get(nic.name) or next((link for link in links.values() if nic.hwaddr == link.hwaddr), None)


def failure(device: str, error: OSError, *, needs: str = "") -> PylxcError:
    """Return the error for what the kernel refused; `needs` is the option of it that may be missing."""
    if needs and error.errno in (errno.EOPNOTSUPP, errno.ENOENT):
        return NotSupported(f"Network device {device!r} needs a kernel with {needs}")
    if error.errno == errno.EEXIST:
        return BadRequest(f"Network device {device!r}: {error.filename} exists already")
    reason = error.strerror or os.strerror(error.errno or 0)
    return Internal(f"Failed attaching network device {device!r}: {reason} ({error.filename})")
