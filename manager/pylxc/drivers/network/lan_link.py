"""The bridge and the interface below it. Standard library only: `lan_watch` runs it without the daemon.

See: rtnetlink(7), linux/if_link.h
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from dataclasses import dataclass

from pylxc.errors import BadRequest, Conflict
from pylxc.kernel import sysctl
from pylxc.kernel.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, Rtnetlink, attributes, nested, pack

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE = 1, 5
_IFF_UP, _IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_NOARP = 0x1, 0x8, 0x10, 0x80
_ARPHRD_ETHER = 1
_BRIDGEABLE = {"", "veth", "vlan", "bond", "team"}
_NOT_COPIED = {"stable_secret", "mtu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """An interface; `kind` is the kernel's, empty for hardware, `master` the index of what it is in, 0 for nothing."""

    index: int
    name: str
    kind: str
    type: int
    flags: int
    master: int
    hwaddr: bytes
    mtu: int

    @property
    def is_up(self) -> bool:
        """Whether it is set up, with a carrier or not."""
        return bool(self.flags & _IFF_UP)


def links() -> dict[str, Facts]:
    """Return the interfaces of this network namespace by name."""
    with Rtnetlink() as netlink:
        return {facts.name: facts for facts in map(_facts, netlink.dump(_RTM_GETLINK, bytes(_IFINFO.size)))}


def check_parent(name: str) -> Facts:
    """Return an interface of the host that can be put into a bridge.

    Raises:
        BadRequest: there is none of that name, or it cannot be in a bridge.
        Conflict: it is in a bridge or bond already.
    """
    found = links()
    link = found.get(name)
    if link is None:
        raise BadRequest(f"Interface {name!r} does not exist", hint=_suggest(found))
    if link.master:
        master = next((other for other in found.values() if other.index == link.master), None)
        where = f"{master.kind} {master.name!r}" if master else "a bridge of another name space"
        hint = f"use it as it is: -n {master.name}" if master and master.kind == "bridge" else ""
        raise Conflict(f"Interface {name!r} is in {where} already", hint=hint)
    if link.kind == "bridge":
        raise Conflict(f"Interface {name!r} is a bridge already", hint=f"use it as it is: -n {name}")
    if link.flags & _IFF_LOOPBACK:
        raise BadRequest(f"Interface {name!r} is the loopback: no network is behind it", hint=_suggest(found))
    if _is_wireless(link):
        raise BadRequest(
            f"Interface {name!r} is wireless: its access point takes no frames of others, so it cannot be bridged",
            hint="use a managed network, and forwards to reach its instances",
        )
    is_ethernet = link.type == _ARPHRD_ETHER and not link.flags & (_IFF_POINTOPOINT | _IFF_NOARP)
    if link.kind not in _BRIDGEABLE or not is_ethernet:
        raise BadRequest(f"Interface {name!r} ({link.kind or 'no Ethernet'}) cannot be put into a bridge")
    return link


def add_bridge(name: str, parent: Facts) -> Facts:
    """Make a bridge that looks like an interface (MAC address, MTU, settings) and is still down.

    Raises:
        OSError: the kernel refuses.
    """
    # Ports forward at once: without a spanning tree the delay would only hold the first frames back.
    data = nested(
        _IFLA_INFO_DATA,
        [(_IFLA_BR_STP_STATE, struct.pack("=I", 0)), (_IFLA_BR_FORWARD_DELAY, struct.pack("=I", 0))],
    )
    body = pack([
        (_IFLA_IFNAME, name.encode() + b"\0"),
        (_IFLA_ADDRESS, parent.hwaddr),
        (_IFLA_MTU, struct.pack("=I", parent.mtu)),
        nested(_IFLA_LINKINFO, [(_IFLA_INFO_KIND, b"bridge"), data]),
    ])  # fmt: skip
    with Rtnetlink() as netlink:
        netlink.call(_RTM_NEWLINK, bytes(_IFINFO.size) + body, NLM_F_CREATE | NLM_F_EXCL, about=name)
    copy_settings(parent.name, name)
    return links()[name]


def copy_settings(source: str, target: str) -> None:
    """Give an interface the IPv4 and IPv6 settings of another one, as far as the kernel lets it."""
    for family in ("ipv4", "ipv6"):
        root = f"net/{family}/conf"
        if sysctl.read(f"{root}/{source}/forwarding") is None:
            continue  # the kernel has no such protocol
        for key in sorted(os.listdir(f"/proc/sys/{root}/{source}")):
            if key in _NOT_COPIED:
                continue
            with contextlib.suppress(OSError):
                value = sysctl.read(f"{root}/{source}/{key}")
                if value is not None:
                    sysctl.write(f"{root}/{target}/{key}", value, optional=True)


def put_into(link: Facts, bridge: Facts) -> None:
    """Put an interface into a bridge and bring both up.

    Raises:
        Conflict: something else sits on the interface.
        OSError: the kernel refuses.
    """
    try:
        _set(link, bridge.index)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Conflict(
                f"Interface {link.name!r} is in use by something that takes its frames, as macvlan interfaces do",
                hint="stop the instances with nictype=macvlan on it",
            ) from error
        raise
    _set(bridge, None)


def release(link: Facts) -> None:
    """Take an interface out of its bridge. Raises OSError: the kernel refuses."""
    _set(link, 0)


def set_down(link: Facts) -> None:
    """Set an interface down. Raises OSError: the kernel refuses."""
    with Rtnetlink() as netlink:
        netlink.call(_RTM_NEWLINK, _IFINFO.pack(0, 0, link.index, 0, _IFF_UP), about=link.name)


def delete(name: str) -> None:
    """Delete an interface; none is no error.

    Raises:
        OSError: the kernel refuses.
    """
    link = links().get(name)
    if link is not None:
        with Rtnetlink() as netlink:
            netlink.call(_RTM_DELLINK, _IFINFO.pack(0, 0, link.index, 0, 0), about=name)


def _set(link: Facts, master: int | None) -> None:
    body = pack([] if master is None else [(_IFLA_MASTER, struct.pack("=I", master))])
    with Rtnetlink() as netlink:
        netlink.call(_RTM_NEWLINK, _IFINFO.pack(0, 0, link.index, _IFF_UP, _IFF_UP) + body, about=link.name)


def _facts(payload: bytes) -> Facts:
    _, kind, index, flags, _ = _IFINFO.unpack_from(payload)
    found = attributes(payload[_IFINFO.size :])
    info = attributes(found[_IFLA_LINKINFO]) if _IFLA_LINKINFO in found else {}
    return Facts(
        index=index,
        name=_text(found[_IFLA_IFNAME]),
        kind=_text(info[_IFLA_INFO_KIND]) if _IFLA_INFO_KIND in info else "",
        type=kind,
        flags=flags,
        master=struct.unpack("=I", found[_IFLA_MASTER])[0] if _IFLA_MASTER in found else 0,
        hwaddr=bytes(found.get(_IFLA_ADDRESS, b"")),
        mtu=struct.unpack("=I", found[_IFLA_MTU])[0],
    )


def _text(value: memoryview) -> str:
    return bytes(value).rstrip(b"\0").decode(errors="replace")


def _is_wireless(link: Facts) -> bool:
    directory = f"/sys/class/net/{link.name}"
    try:
        with open(f"{directory}/ifindex", encoding="ascii") as file:
            here = file.read().strip() == str(link.index)  # /sys may be another network namespace's
    except OSError:
        return False
    return here and any(os.path.exists(f"{directory}/{mark}") for mark in ("phy80211", "wireless"))


def _suggest(found: dict[str, Facts]) -> str:
    names = [
        link.name
        for link in found.values()
        if link.kind in ("", "bond", "team") and not link.flags & _IFF_LOOPBACK and not link.master
    ]
    return f"there is {', '.join(sorted(names))}" if names else ""
