"""What the interfaces of a network namespace look like, read by rtnetlink from outside of it.

Only a thread of its own enters the namespace, for as long as it takes to open a socket there: a socket stays in the
network namespace that it was made in.

See: rtnetlink(7), linux/if_link.h, linux/if_addr.h
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from pylxc.kernel.namespaces import CLONE_NEWNET, setns
from pylxc.kernel.rtnetlink import attributes, dump

IFF_UP = 0x1
IFF_BROADCAST = 0x2
IFF_LOOPBACK = 0x8
IFF_POINTOPOINT = 0x10

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_STATS64, _IFLA_LINK_NETNSID = 1, 3, 4, 5, 23, 37
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SCOPES = {0: "global", 253: "link", 254: "local"}

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_STATS = struct.Struct("=8Q")


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface: `family` is "inet" or "inet6", `scope` global, link or local."""

    family: str
    address: str
    prefix: int
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface.

    Attributes:
        flags: IFF_*.
        peer: index of a veth's other end in its own namespace, 0 when it has none or that is this namespace.
        stats: packets received, sent, bytes received, sent, errors received, sent, dropped when received, sent.
    """

    index: int
    name: str
    flags: int
    mtu: int
    hwaddr: str
    peer: int
    stats: tuple[int, ...]
    addresses: list[Address] = field(default_factory=list)


def interfaces(pids: Iterable[int]) -> dict[int, list[Interface]]:
    """Return the interfaces in the network namespaces of processes, in the kernel's order; processes gone are left out.

    Args:
        pids: of the host.
    """
    sockets: dict[int, socket.socket] = {}
    thread = threading.Thread(target=_open_sockets, args=(list(pids), sockets), name="netinfo")
    thread.start()
    thread.join()
    found = {}
    for pid, sock in sockets.items():
        with sock:
            found[pid] = _read(sock)
    return found


def _open_sockets(pids: list[int], sockets: dict[int, socket.socket]) -> None:
    for pid in pids:
        with suppress(OSError):  # it is gone
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd, CLONE_NEWNET)
                sockets[pid] = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            finally:
                os.close(fd)


def _read(sock: socket.socket) -> list[Interface]:
    sock.bind((0, 0))
    found: dict[int, Interface] = {}
    for payload in dump(sock, _RTM_GETLINK, _RTM_NEWLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
        interface = _parse_link(payload)
        found[interface.index] = interface
    for payload in dump(sock, _RTM_GETADDR, _RTM_NEWADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        index, address = _parse_address(payload)
        if address is not None and index in found:
            found[index].addresses.append(address)
    return list(found.values())


def _parse_link(payload: memoryview) -> Interface:
    _family, _type, index, flags, _change = _IFINFO.unpack_from(payload)
    found = attributes(payload[_IFINFO.size :])
    link = struct.unpack("=I", found[_IFLA_LINK])[0] if _IFLA_LINK in found and _IFLA_LINK_NETNSID in found else 0
    return Interface(
        index=index,
        name=bytes(found[_IFLA_IFNAME]).rstrip(b"\0").decode(errors="replace"),
        flags=flags,
        mtu=struct.unpack("=I", found[_IFLA_MTU])[0],
        hwaddr=bytes(found.get(_IFLA_ADDRESS, b"")).hex(":"),
        peer=link,
        stats=_STATS.unpack_from(found[_IFLA_STATS64]) if _IFLA_STATS64 in found else (0,) * 8,
    )


def _parse_address(payload: memoryview) -> tuple[int, Address | None]:
    family, prefix, _flags, scope, index = _IFADDR.unpack_from(payload)
    found = attributes(payload[_IFADDR.size :])
    raw = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
    if raw is None or family not in (socket.AF_INET, socket.AF_INET6):
        return index, None
    text = socket.inet_ntop(family, bytes(raw))
    name = "inet" if family == socket.AF_INET else "inet6"
    return index, Address(name, text, prefix, _SCOPES.get(scope, "global"))
