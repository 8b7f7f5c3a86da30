"""Limits of what leaves and enters by an interface.

What leaves goes through the qdisc htb with one class that everything falls into. What enters cannot be held back, so it
is sent through an interface of kind ifb first and leaves that by the same means.

See: tc-htb(8), tc-mirred(8)
"""

from __future__ import annotations

import errno
from contextlib import suppress

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pylxc.kernel.netlink import Netlink

_ROOT, _CLASS = 0x10000, 0x10010
_INGRESS, _FILTER, _EVERY_PROTOCOL = 0xFFFF0000, 0x80000800, 0x0003
_QUEUE_PACKETS = 1000
_LEAST_BURST = 1 << 16
_BURSTS_PER_SECOND = 100
_MOST_BITS = 8 * (2**32 - 1)
"""What the kernel can be told of by its older interface; no veth is as fast."""


def limit_incoming(netlink: Netlink, index: int, detour: str, bits: int) -> None:
    """Take in no more than `bits` a second by an interface, 0 for any number; replaces an earlier limit.

    Args:
        netlink: where the interface is.
        index: of the interface.
        detour: name of the interface that is made for it, or was made; see `remove_detour`.
        bits: a second.

    Raises:
        OSError: EOPNOTSUPP or ENOENT when the kernel lacks what it takes.
    """
    if not bits:
        with suppress(OSError):  # there is none
            netlink.call(lambda ipr: ipr.tc("del", "ingress", index), detour)
        remove_detour(netlink, detour)
        return
    if netlink.find(detour) is None:
        netlink.add(detour, "ifb", state="up", txqlen=_QUEUE_PACKETS)
    target = netlink.get(detour).index
    limit(netlink, target, bits, detour)

    def lead(ipr: IPRoute) -> None:
        with suppress(NetlinkError):  # it is there already
            ipr.tc("add", "ingress", index)
        redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": target}
        ipr.tc("replace-filter", "u32", index, parent=_INGRESS, prio=1, protocol=_EVERY_PROTOCOL, handle=_FILTER,
               target=_CLASS, keys=["0x0/0x0+0"], action=redirect)  # fmt: skip

    netlink.call(lead, detour)


def remove_detour(netlink: Netlink, detour: str) -> None:
    """Remove the interface that `limit_incoming` made, if it is there; its own interface may be gone already."""
    netlink.delete(detour)


def limit(netlink: Netlink, index: int, bits: int, what: str) -> None:
    """Let no more than `bits` a second leave by an interface, 0 for any number; replaces an earlier limit.

    Args:
        netlink: where the interface is.
        index: of the interface.
        bits: a second.
        what: what an error names.

    Raises:
        OSError: ENOENT when the kernel has no htb.
    """

    def change(ipr: IPRoute) -> None:
        # More than the timer's resolution needs, and no less than a segment that is not cut up before it is sent.
        burst = max(_LEAST_BURST, bits // 8 // _BURSTS_PER_SECOND)
        with suppress(NetlinkError):  # it is there, and cannot be changed; without it the class fails
            ipr.tc("add", "htb", index, _ROOT, default=_CLASS & 0xFFFF)
        ipr.tc("replace-class", "htb", index, _CLASS, parent=_ROOT, rate=f"{bits}bit", burst=burst, cburst=burst)

    if 0 < bits <= _MOST_BITS:
        netlink.call(change, what)
        return
    try:
        netlink.call(lambda ipr: ipr.tc("del", index=index, kind="htb", handle=_ROOT), what)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):  # there is none
            raise
