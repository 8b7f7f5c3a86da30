"""The host's interfaces, addresses and routes by rtnetlink, in the network namespace of the process.

Reading addresses and counters, of any namespace, is `pylxc.kernel.netinfo`. pyroute2 keeps an event loop and a
socket for every thread that calls it; here one thread owns the only socket and
everybody's calls go through it.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pylxc.kernel.namespaces import CLONE_NEWNET, setns

log = logging.getLogger(__name__)

T = TypeVar("T")

# See: linux/rtnetlink.h, linux/if.h, linux/if_arp.h
_IFF_UP = 0x1
_RTM_NEWLINK = 16
_NLM_F_REQUEST_ACK = 0x5
_NLMSG_ERROR = 2
_IFLA_IFNAME = 3
_ARPHRD_LOOPBACK = 772
_RTPROT_STATIC = 4
_LOOK_SECONDS = 0.001
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface.

    `kind` is the kernel's (veth, bridge, vlan, ...), empty for hardware; `master` is the index of the bridge or bond
    that it is in, 0 for none.
    """

    index: int
    name: str
    kind: str
    hwaddr: str
    mtu: int
    up: bool
    master: int
    loopback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route.

    `destination` as `10.0.0.0/8`, empty for a default route; `index` is its interface's; `is_static` tells that an
    administrator (or `add_route`) made it, not the kernel.
    """

    family: str
    destination: str
    gateway: str
    index: int
    is_static: bool


class Netlink:
    """A connection to rtnetlink; thread-safe. Methods raise OSError with the kernel's errno and what it was about."""

    def __init__(self, namespace: str = "") -> None:
        """Connect to the network namespace of the process, or to the one whose file `namespace` is."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        # Another thread enters containers' namespaces, so that the first one is certain to be in the host's.
        self._visitor = ThreadPoolExecutor(1, thread_name_prefix="netlink-ns")
        self._ipr: IPRoute = self._worker.submit(_connect, namespace).result()
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="netlink-del")
        self._remover_ipr: IPRoute | None = None

    def close(self) -> None:
        """Close the socket and end the threads."""
        self._remover.submit(self._close_remover).result()
        self._worker.submit(self._ipr.close).result()
        for executor in (self._remover, self._worker, self._visitor):
            executor.shutdown()

    @staticmethod
    @contextmanager
    def of(namespace: str) -> Iterator[Netlink]:
        """Connect to the network namespace whose file `namespace` is while the block runs.

        Raises:
            OSError: ENOENT when there is no such file.
        """
        connection = Netlink(namespace)
        try:
            yield connection
        finally:
            connection.close()

    def inside(self, pid: int) -> AbstractContextManager[Netlink]:
        """Connect to the network namespace of process `pid`, see `of`."""
        return self.of(f"/proc/{pid}/ns/net")

    def call(self, function: Callable[[IPRoute], T], name: str = "") -> T:
        """Return what `function` does on the connection; errors name `name`."""
        try:
            return self._worker.submit(function, self._ipr).result()
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code), name) from None

    # Interfaces

    def links(self) -> list[Link]:
        """Return all interfaces, by index."""
        return [_link(message) for message in self.call(lambda ipr: tuple(ipr.get_links()))]

    def find(self, name: str) -> Link | None:
        """Return the interface called `name`, None when there is none."""
        try:
            return _link(self.call(lambda ipr: tuple(ipr.link("get", ifname=name)), name)[0])
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def get(self, name: str) -> Link:
        """Return the interface called `name`.

        Raises:
            OSError: ENODEV.
        """
        return _link(self.call(lambda ipr: tuple(ipr.link("get", ifname=name)), name)[0])

    def bridge_data(self, name: str) -> Mapping[str, Any]:
        """Return a bridge's attributes by the kernel's names in lower case: br_stp_state, br_forward_delay, ...

        Raises:
            OSError: ENODEV.
        """
        info = self.call(lambda ipr: tuple(ipr.link("get", ifname=name)), name)[0].get("linkinfo")
        data = info.get("data") if info else None
        return {key.removeprefix("IFLA_").lower(): value for key, value in data["attrs"]} if data else {}

    def add(self, name: str, kind: str, **attributes: Any) -> None:
        """Make an interface; `attributes` are pyroute2's for `link("add")`."""
        self.call(lambda ipr: ipr.link("add", ifname=name, kind=kind, **attributes), name)

    def set(self, index: int, **attributes: Any) -> None:
        """Change an interface; `attributes` are pyroute2's for `link("set")`."""
        self.call(lambda ipr: ipr.link("set", index=index, **attributes), str(index))

    def delete(self, name: str) -> bool:
        """Delete an interface; return False when there is none."""
        try:
            self.call(lambda ipr: ipr.link("del", ifname=name), name)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
        return True

    def delete_soon(self, name: str) -> None:
        """Delete an interface, if it exists, without waiting: the kernel takes 20 ms and more for it."""
        self._remover.submit(self._delete_now, name)

    def delete_from_view(self, name: str) -> None:
        """Delete an interface, if it exists, and return when nobody sees it: half of the time that `delete` takes.

        Raises:
            OSError: EBUSY when it cannot be deleted; the log says why.
        """
        deleted = self._remover.submit(self._delete_now, name)
        while not deleted.done():
            if self.find(name) is None:
                return
            time.sleep(_LOOK_SECONDS)
        if self.find(name) is not None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)

    def _delete_now(self, name: str) -> None:
        if self._remover_ipr is None:
            self._remover_ipr = IPRoute()
        try:
            self._remover_ipr.link("del", ifname=name)
        except NetlinkError as error:
            if error.code not in _ABSENT:
                log.warning("Cannot delete interface %s: %s", name, os.strerror(error.code))

    def _close_remover(self) -> None:
        if self._remover_ipr is not None:
            self._remover_ipr.close()

    def set_up_inside(self, pid: int, name: str) -> None:
        """Set the interface `name` up in the network namespace of process `pid`.

        The kernel refuses to make both ends of a veth up at once, so this takes a message of its own.
        """
        self._visitor.submit(_set_up_inside, pid, name).result()

    # Addresses and routes

    def add_address(self, index: int, address: str, prefix: int) -> None:
        """Give an interface an address; one that it has is no error. IPv6 addresses are usable at once (no DAD)."""
        flags = {"flags": 0x02} if ":" in address else {}  # IFA_F_NODAD
        try:
            self.call(lambda ipr: ipr.addr("add", index=index, address=address, prefixlen=prefix, **flags), address)
        except FileExistsError:
            return

    def delete_address(self, index: int, address: str, prefix: int) -> None:
        """Take an address from an interface."""
        self.call(lambda ipr: ipr.addr("del", index=index, address=address, prefixlen=prefix), address)

    def routes(self) -> list[Route]:
        """Return the routes of all tables."""
        found = []
        for message in self.call(
            lambda ipr: (*ipr.get_routes(family=socket.AF_INET), *ipr.get_routes(family=socket.AF_INET6))
        ):
            destination = message.get("dst")
            found.append(
                Route(
                    family="inet" if message["family"] == socket.AF_INET else "inet6",
                    destination=f"{destination}/{message['dst_len']}" if destination else "",
                    gateway=message.get("gateway") or "",
                    index=message.get("oif") or 0,
                    is_static=message["proto"] == _RTPROT_STATIC,
                )
            )
        return found

    def add_route(self, index: int, destination: str, *, exclusive: bool = False, **attributes: Any) -> None:
        """Route a subnet to an interface.

        Args:
            index: the interface.
            destination: the subnet; "default" for everything, of the gateway's family.
            exclusive: fail when there is such a route; else it is replaced.
            attributes: pyroute2's for `route("add")`: table, gateway, ...

        Raises:
            OSError: EEXIST.
        """
        how = "add" if exclusive else "replace"
        whole = {"dst": destination, "oif": index, "proto": _RTPROT_STATIC, "scope": _scope(attributes), **attributes}
        self.call(lambda ipr: ipr.route(how, **whole), destination)

    def delete_route(self, index: int, destination: str, **attributes: Any) -> None:
        """Remove a route that `add_route` made, with the same attributes; none is no error."""
        try:
            whole = {"dst": destination, "oif": index, "scope": _scope(attributes), **attributes}
            self.call(lambda ipr: ipr.route("del", **whole), destination)
        except ProcessLookupError:
            return

    def add_proxy(self, index: int, address: str) -> None:
        """Answer for an address on an interface, as if it were there. See: ip-neighbour(8)."""
        self.call(lambda ipr: ipr.neigh("replace", dst=address, ifindex=index, flags=_NTF_PROXY), address)

    def delete_proxy(self, index: int, address: str) -> None:
        """Undo `add_proxy`; none is no error."""
        try:
            self.call(lambda ipr: ipr.neigh("del", dst=address, ifindex=index, flags=_NTF_PROXY), address)
        except FileNotFoundError:
            return

    # Ports of bridges

    def set_port(self, index: int, **attributes: Any) -> None:
        """Change an interface as a bridge's port; `attributes` are pyroute2's for `brport("set")`."""
        self.call(lambda ipr: ipr.brport("set", index=index, **attributes), str(index))

    def set_port_vlans(self, index: int, untagged: int, tagged: Iterable[int]) -> None:
        """Put a port into VLANs and out of the bridge's own; `untagged` 0 is none.

        Raises:
            OSError: EOPNOTSUPP when the kernel has no VLANs in bridges.
        """

        def change(ipr: IPRoute) -> None:
            with suppress(NetlinkError):  # it has not got it
                ipr.vlan_filter("del", index=index, vlan_info={"vid": _DEFAULT_VLAN})
            if untagged:
                ipr.vlan_filter("add", index=index, vlan_info={"vid": untagged, "flags": ["pvid", "untagged"]})
            for vlan in tagged:
                ipr.vlan_filter("add", index=index, vlan_info={"vid": vlan})

        self.call(change, str(index))


_DEFAULT_VLAN = 1
_NTF_PROXY = 0x08
_ABSENT = (errno.ENXIO, errno.ENODEV, errno.ERANGE)  # the last: no interface's name is as long


def _scope(attributes: Mapping[str, Any]) -> int:
    """Return the scope of a route: without a gateway it is of the link, so that it can lead to gateways."""
    return _RT_SCOPE_UNIVERSE if attributes.get("gateway") else _RT_SCOPE_LINK


def random_veth() -> str:
    """Return a name for the host's end of a veth pair."""
    return f"veth{secrets.token_hex(4)}"


def random_hwaddr() -> str:
    """Return a MAC address out of those that LXD gives to instances, 00:16:3e:*."""
    return f"00:16:3e:{secrets.token_bytes(3).hex(':')}"


def _link(message: Any) -> Link:
    info = message.get("linkinfo")
    return Link(
        index=message["index"],
        name=message.get("ifname"),
        kind=(info.get("kind") if info else None) or "",
        hwaddr=message.get("address") or "",
        mtu=message.get("mtu") or 0,
        up=bool(message["flags"] & _IFF_UP),
        master=message.get("master") or 0,
        loopback=message["ifi_type"] == _ARPHRD_LOOPBACK,
    )


def _connect(namespace: str) -> IPRoute:
    """Move this thread into a network namespace for good, and return a connection to it."""
    if namespace:
        with open(namespace, "rb") as file:
            setns(file.fileno(), CLONE_NEWNET)
    return IPRoute()


def _set_up_inside(pid: int, name: str) -> None:
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(theirs, CLONE_NEWNET)
        finally:
            os.close(theirs)
        try:
            connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)
    with connection:
        label = name.encode() + b"\0"
        attribute = struct.pack("=HH", 4 + len(label), _IFLA_IFNAME) + label + b"\0" * (-len(label) % 4)
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, _IFF_UP, _IFF_UP) + attribute
        connection.send(struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, _NLM_F_REQUEST_ACK, 1, 0) + body)
        answer = connection.recv(4096)
    number = struct.unpack_from("=i", answer, 16)[0] if struct.unpack_from("=H", answer, 4)[0] == _NLMSG_ERROR else 0
    if number:
        raise OSError(-number, os.strerror(-number), name)
