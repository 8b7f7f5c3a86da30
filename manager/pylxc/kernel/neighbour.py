"""Ask neighbours on a link whether they are there: the kernel does it, by ARP or neighbour discovery.

See: rtnetlink(7), linux/neighbour.h
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Iterable

from pylxc.kernel.rtnetlink import NLM_F_CREATE, NLM_F_REPLACE, Rtnetlink, attributes, pack

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_RTMGRP_NEIGH = 0x4
_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_NDA_DST = 1
_NTF_USE = 0x1
_NUD_REACHABLE, _NUD_FAILED = 0x02, 0x20
_NUD_KNOWN = 0x1E  # reachable, stale, delay, probe: it answered some time ago
_ASK_SECONDS = 0.2
"""How long after a failure the next question follows; the kernel itself asks three times, a second apart."""


def known(index: int) -> list[str]:
    """Return the neighbours on an interface that have answered some time ago."""
    with Rtnetlink() as netlink:
        found = netlink.dump(_RTM_GETNEIGH, bytes(_NDMSG.size))
    return [
        address for address, where, state in map(_entry, found) if where == index and address and state & _NUD_KNOWN
    ]


def answering(index: int, addresses: Iterable[str], seconds: float) -> set[str]:
    """Return those of `addresses` that answered on an interface: at once when all have, else when the time is over.

    Args:
        index: of the interface.
        addresses: IPv4 and IPv6.
        seconds: how long to wait.

    Raises:
        OSError: the interface is gone or down.
    """
    wanted = set(addresses)
    found: set[str] = set()
    deadline = time.monotonic() + seconds
    with Rtnetlink() as netlink:
        for address in wanted:
            _forget(netlink, index, address)
    # Opened now: that an entry was forgotten is announced as a failure too.
    with Rtnetlink(groups=_RTMGRP_NEIGH) as events, Rtnetlink() as netlink:
        poll = select.poll()
        poll.register(events.fileno(), select.POLLIN)
        for address in wanted:
            _ask(netlink, index, address)
        while found != wanted and (left := deadline - time.monotonic()) > 0:
            failed = set()
            if poll.poll(left * 1000):
                for address, state in _changes(events, index):
                    if state & _NUD_REACHABLE and address in wanted:
                        found.add(address)
                    elif state & _NUD_FAILED and address in wanted:
                        failed.add(address)
            if failed - found:
                time.sleep(min(_ASK_SECONDS, max(0.0, deadline - time.monotonic())))
                for address in failed - found:
                    _ask(netlink, index, address)
    return found


def _forget(netlink: Rtnetlink, index: int, address: str) -> None:
    """Forget what was learnt before: it proves nothing."""
    with contextlib.suppress(OSError):
        netlink.call(_RTM_DELNEIGH, _message(index, address, 0))


def _ask(netlink: Rtnetlink, index: int, address: str) -> None:
    body = _message(index, address, _NTF_USE)
    netlink.call(_RTM_NEWNEIGH, body, NLM_F_CREATE | NLM_F_REPLACE, about=address)


def _message(index: int, address: str, flags: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return _NDMSG.pack(family, index, 0, flags, 0) + pack([(_NDA_DST, socket.inet_pton(family, address))])


def _changes(events: Rtnetlink, index: int) -> list[tuple[str, int]]:
    try:
        announced = events.announced()
    except OSError as error:
        if error.errno == errno.ENOBUFS:  # too many at once; the next question tells
            return []
        raise
    entries = [_entry(payload) for kind, payload in announced if kind == _RTM_NEWNEIGH]
    return [(address, state) for address, where, state in entries if where == index and address]


def _entry(payload: bytes) -> tuple[str, int, int]:
    """Return (address, index, state) of an entry; of another family the address is empty."""
    family, index, state, _, _ = _NDMSG.unpack_from(payload)
    destination = attributes(payload[_NDMSG.size :]).get(_NDA_DST)
    if destination is None or family not in (socket.AF_INET, socket.AF_INET6):
        return "", index, state
    return socket.inet_ntop(family, bytes(destination)), index, state
