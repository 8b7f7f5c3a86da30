"""What the host has on an interface: addresses, routes, static neighbours: read, moved, put back exactly.

Everything is kept as the kernel's own messages, so that what this module has no name for (metrics, labels, lifetimes,
protocols, several next hops) travels along. Standard library only: `lan_watch` runs it without the daemon.

See: rtnetlink(7), linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h
"""

from __future__ import annotations

import base64
import contextlib
import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pylxc.kernel import sysctl
from pylxc.kernel.rtnetlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, Rtnetlink, attributes, pack

_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30

_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_IFA_LOCAL, _IFA_ADDRESS, _IFA_LABEL, _IFA_CACHEINFO = 2, 1, 3, 6
_LIFETIMES = struct.Struct("=4I")  # preferred, valid, made, changed
_FOREVER = 0xFFFFFFFF
_IFA_F_TENTATIVE = 0x40
_SETTLE_SECONDS = 1.0

_RTMSG = struct.Struct("=8BI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_CACHEINFO, _RTA_VIA = 1, 4, 5, 9, 12, 18
_RTA_EXPIRES, _RTA_NH_ID = 23, 30
_RT_TABLE_LOCAL = 255
_RTM_F_CLONED = 0x200
_WISHES = 0x6  # RTNH_F_PERVASIVE, RTNH_F_ONLINK: the other flags tell how a route is, and cannot be asked for
_NEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index

_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_NUD_PERMANENT = 0x80

_IP = (socket.AF_INET, socket.AF_INET6)
_FAMILIES: dict[int, str] = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of `State`; `seconds` is how long it is valid, None for ever."""

    family: str
    address: str
    seconds: int | None
    link_local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The layer 3 of an interface at a moment.

    Attributes:
        index: the interface's.
        name: the interface's.
        taken: seconds of the boot clock: lifetimes have run since.
        addresses: payloads of RTM_NEWADDR, in an order in which adding them gives the same order again.
        routes: payloads of RTM_NEWROUTE, those first that others build on.
        neighbours: payloads of RTM_NEWNEIGH of permanent entries.
    """

    index: int
    name: str
    taken: float
    addresses: tuple[bytes, ...]
    routes: tuple[bytes, ...]
    neighbours: tuple[bytes, ...]

    def to_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        found: dict[str, object] = {"index": self.index, "name": self.name, "taken": self.taken}
        for key in ("addresses", "routes", "neighbours"):
            found[key] = [base64.b64encode(payload).decode() for payload in getattr(self, key)]
        return found

    @classmethod
    def from_json(cls, data: dict[str, object]) -> State:
        """Return what `to_json` gave."""
        lists = {
            key: tuple(base64.b64decode(text) for text in _texts(data[key]))
            for key in ("addresses", "routes", "neighbours")
        }
        return cls(index=int(str(data["index"])), name=str(data["name"]), taken=float(str(data["taken"])), **lists)

    def readable(self) -> list[Address]:
        """Return the addresses as a person reads them."""
        return [_readable(payload) for payload in self.addresses]

    def gateways(self, *, default: bool) -> list[str]:
        """Return the next hops of default routes, or those of the others."""
        chosen = [payload for payload in self.routes if (_RTMSG.unpack_from(payload)[1] == 0) == default]
        return list(dict.fromkeys(hop for payload in chosen for hop in _next_hops(payload)))


def capture(index: int, name: str) -> State:
    """Return what is on an interface now.

    Raises:
        OSError: the kernel refuses.
    """
    with Rtnetlink() as netlink:
        addresses = [
            payload
            for payload in netlink.dump(_RTM_GETADDR, bytes(_IFADDR.size))
            if _IFADDR.unpack_from(payload)[4] == index and payload[0] in _IP
        ]
        routes = [
            payload
            for family in _IP
            for payload in netlink.dump(_RTM_GETROUTE, bytes((family,)).ljust(_RTMSG.size, b"\0"))
            if _is_ours(payload, index)
        ]
        neighbours = [
            payload
            for payload in netlink.dump(_RTM_GETNEIGH, bytes(_NDMSG.size))
            if _NDMSG.unpack_from(payload)[1:3] == (index, _NUD_PERMANENT) and payload[0] in _IP
        ]
    # The kernel puts a new IPv6 address before the others of its scope, and an IPv4 address behind them.
    ordered = [a for a in addresses if a[0] == socket.AF_INET]
    ordered += [a for a in reversed(addresses) if a[0] == socket.AF_INET6]
    routes.sort(key=_needs_another)
    return State(
        index=index,
        name=name,
        taken=_now(),
        addresses=tuple(ordered),
        routes=tuple(routes),
        neighbours=tuple(neighbours),
    )


def put(state: State, index: int, name: str) -> None:
    """Give an interface everything of a state; what it has already is no error.

    Args:
        state: of this interface or of another one.
        index: of the interface that gets it, which is up.
        name: its name.

    Raises:
        OSError: the kernel refuses one of the addresses or routes; the others are there.
    """
    refused: OSError | None = None
    elapsed = int(_now() - state.taken)
    with Rtnetlink() as netlink, without_detection(index, name):
        for kind, flags, messages in (
            (_RTM_NEWADDR, NLM_F_CREATE, (_address(a, state, index, name, elapsed) for a in state.addresses)),
            (_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, (_neighbour(n, index) for n in state.neighbours)),
            (
                _RTM_NEWROUTE,
                NLM_F_CREATE | NLM_F_APPEND,
                (_route(r, state.index, index, elapsed) for r in state.routes),
            ),
        ):
            for body in messages:
                try:
                    if body:
                        netlink.call(kind, body, flags, about=_about(kind, body))
                except OSError as error:
                    if error.errno != errno.EEXIST:
                        refused = refused or error
    if refused is not None:
        raise refused


def clear(index: int, name: str) -> None:
    """Take every address and route from an interface. Raises OSError: the kernel refuses."""
    state = capture(index, name)
    with Rtnetlink() as netlink:
        gone = (errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT)  # it went with another one
        for kind, payloads in ((_RTM_DELROUTE, reversed(state.routes)), (_RTM_DELADDR, reversed(state.addresses))):
            for payload in payloads:
                try:
                    netlink.call(kind, payload, about=_about(kind, payload))
                except OSError as error:
                    if error.errno not in gone:
                        raise


@contextlib.contextmanager
def without_detection(index: int, name: str) -> Iterator[None]:
    """Have addresses of an interface usable at once: nobody else can have got them in the moment of a move."""
    key = f"net/ipv6/conf/{name}/accept_dad"
    before = sysctl.read(key)
    if before is None:
        yield
        return
    sysctl.write(key, "0")
    try:
        yield
        deadline = time.monotonic() + _SETTLE_SECONDS
        # The kernel reads the setting when it gets round to the address, not when that is added.
        while _has_tentative(index) and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        sysctl.write(key, before)


def _has_tentative(index: int) -> bool:
    with Rtnetlink() as netlink:
        found = netlink.dump(_RTM_GETADDR, _IFADDR.pack(socket.AF_INET6, 0, 0, 0, 0))
    return any(fields[4] == index and fields[2] & _IFA_F_TENTATIVE for fields in map(_IFADDR.unpack_from, found))


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


# Addresses


def _readable(payload: bytes) -> Address:
    family = payload[0]
    found = attributes(payload[_IFADDR.size :])
    text = socket.inet_ntop(family, bytes(found.get(_IFA_LOCAL, found[_IFA_ADDRESS])))
    valid = _LIFETIMES.unpack(found[_IFA_CACHEINFO])[1] if _IFA_CACHEINFO in found else _FOREVER
    return Address(
        family=_FAMILIES[family],
        address=text,
        seconds=None if valid == _FOREVER else valid,
        link_local=ipaddress.ip_address(text).is_link_local,
    )


def _address(payload: bytes, state: State, index: int, name: str, elapsed: int) -> bytes | None:
    """Return the request that adds an address, None when its time is over."""
    found = attributes(payload[_IFADDR.size :])
    changed: list[tuple[int, bytes | memoryview]] = []
    for kind, value in found.items():
        if kind == _IFA_LABEL:
            label = bytes(value).rstrip(b"\0").decode()
            if label == state.name or label.startswith(f"{state.name}:"):
                label = name + label[len(state.name) :]
            changed.append((kind, label.encode()[:15] + b"\0"))
        elif kind == _IFA_CACHEINFO:
            preferred, valid, *stamps = _LIFETIMES.unpack(value)
            if valid != _FOREVER and valid <= elapsed:
                return None
            preferred, valid = (t if t == _FOREVER else max(0, t - elapsed) for t in (preferred, valid))
            changed.append((kind, _LIFETIMES.pack(preferred, valid, *stamps)))
        else:
            changed.append((kind, value))
    return _IFADDR.pack(*_IFADDR.unpack_from(payload)[:4], index) + pack(changed)


# Routes


def _is_ours(payload: bytes, index: int) -> bool:
    table, flags = _RTMSG.unpack_from(payload)[4], _RTMSG.unpack_from(payload)[8]
    if table == _RT_TABLE_LOCAL or flags & _RTM_F_CLONED:
        return False
    found = attributes(payload[_RTMSG.size :])
    if _RTA_OIF in found and struct.unpack("=I", found[_RTA_OIF])[0] == index:
        return True
    return any(hop[3] == index for hop, _ in _multipath(found.get(_RTA_MULTIPATH)))


def _needs_another(payload: bytes) -> bool:
    """Return whether a route's next hop must be reached by another route."""
    found = attributes(payload[_RTMSG.size :])
    return bool({_RTA_GATEWAY, _RTA_VIA, _RTA_MULTIPATH} & found.keys())


def _multipath(value: memoryview | None) -> Iterator[tuple[tuple[int, int, int, int], memoryview]]:
    """Yield the (header, attributes) of a route's next hops."""
    while value is not None and len(value) >= _NEXTHOP.size:
        header = _NEXTHOP.unpack_from(value)
        yield header, value[_NEXTHOP.size : header[0]]
        value = value[(header[0] + 3) & ~3 :]


def _next_hops(payload: bytes) -> Iterator[str]:
    found = attributes(payload[_RTMSG.size :])
    for one in (found, *(attributes(hop) for _, hop in _multipath(found.get(_RTA_MULTIPATH)))):
        if _RTA_GATEWAY in one:
            yield socket.inet_ntop(payload[0], bytes(one[_RTA_GATEWAY]))
        elif _RTA_VIA in one:  # an address of the other family
            family = struct.unpack_from("=H", one[_RTA_VIA])[0]
            yield socket.inet_ntop(family, bytes(one[_RTA_VIA][2:]))


def _route(payload: bytes, old: int, new: int, elapsed: int) -> bytes | None:
    """Return the request that adds a route, None when its time is over."""
    header = _RTMSG.unpack_from(payload)
    changed: list[tuple[int, bytes | memoryview]] = []
    for kind, value in attributes(payload[_RTMSG.size :]).items():
        if kind == _RTA_OIF:
            changed.append((kind, struct.pack("=I", new)))
        elif kind == _RTA_MULTIPATH:
            hops = b""
            for (length, flags, weight, index), rest in _multipath(value):
                hops += _NEXTHOP.pack(length, flags & _WISHES, weight, new if index == old else index) + bytes(rest)
                hops += bytes(-len(hops) % 4)
            changed.append((kind, hops))
        elif kind == _RTA_CACHEINFO:  # what is left of a learnt route's life is told here, and asked for elsewhere
            expires = struct.unpack_from("=i", value, 8)[0] // 100
            if expires and expires <= elapsed:
                return None
            if expires:
                changed.append((_RTA_EXPIRES, struct.pack("=I", expires - elapsed)))
        elif kind not in (_RTA_NH_ID, _RTA_EXPIRES):  # the next hop is told beside its id
            changed.append((kind, value))
    return _RTMSG.pack(*header[:8], header[8] & _WISHES) + pack(changed)


def _neighbour(payload: bytes, index: int) -> bytes:
    family, _, state, flags, kind = _NDMSG.unpack_from(payload)
    kept = {k: v for k, v in attributes(payload[_NDMSG.size :]).items() if k in (1, 2)}  # NDA_DST, NDA_LLADDR
    return _NDMSG.pack(family, index, state, flags, kind) + pack(kept.items())


def _about(kind: int, body: bytes) -> str:
    """Return what a message is about, for an error."""
    if kind in (_RTM_NEWADDR, _RTM_DELADDR):
        return f"address {_readable(body).address}"
    if kind in (_RTM_NEWROUTE, _RTM_DELROUTE):
        destination = attributes(body[_RTMSG.size :]).get(_RTA_DST)
        return f"route {socket.inet_ntop(body[0], bytes(destination)) if destination else 'default'}/{body[1]}"
    return "neighbour"
