"""What can be waited for in a network namespace, seen from outside: addresses, default routes, listening sockets.

As in `netinfo`, a thread of its own enters the namespace for as long as it takes to open the sockets.

See: rtnetlink(7), sock_diag(7), linux/inet_diag.h
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading

from pylxc.kernel.namespaces import CLONE_NEWNET, setns
from pylxc.kernel.rtnetlink import Rtnetlink, attributes, dump

# Links, addresses and routes of both families. See: RTMGRP_* in linux/rtnetlink.h
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE = 18, 22, 26
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_NOT_USABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
_SCOPE_GLOBAL, _RTN_UNICAST = 0, 1
_RTA_OIF = 4

_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_DIAG = struct.Struct("=BBBBI48x")
_TCP_LISTEN, _UDP_UNCONNECTED = 1 << 10, 1 << 7


class NetWatch:
    """Watches the network namespace of a process; for one thread.

    Args:
        pid: on the host.
    """

    def __init__(self, pid: int) -> None:
        """Open it; raises OSError when the process has gone."""
        self._failure: OSError | None = None
        thread = threading.Thread(target=self._open, args=(pid,), name="netwatch")
        thread.start()
        thread.join()
        if self._failure is not None:
            raise self._failure

    def _open(self, pid: int) -> None:
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd, CLONE_NEWNET)
            finally:
                os.close(fd)
            self._announcements = Rtnetlink(_GROUPS)
            self._questions = Rtnetlink()
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
            self._sockets = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        except OSError as error:
            self._failure = error

    def fileno(self) -> int:
        """Return a descriptor that is readable once something about links, addresses or routes has changed."""
        return self._announcements.fileno()

    def forget_changes(self) -> None:
        """Take note of the changes that made `fileno` readable."""
        poll = select.poll()
        poll.register(self._announcements.fileno(), select.POLLIN)
        while poll.poll(0):
            with contextlib.suppress(OSError):  # there were more than the socket holds; one looks for oneself anyway
                self._announcements.announced()

    def addresses(self) -> set[str]:
        """Return the families ("inet", "inet6") of which an interface has an address that others can reach."""
        up = set()
        for payload in self._questions.dump(_RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
            _family, _type, index, flags, _change = _IFINFO.unpack_from(payload)
            if flags & _IFF_UP and not flags & _IFF_LOOPBACK:
                up.add(index)
        found = set()
        for payload in self._questions.dump(_RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
            family, _prefix, flags, scope, index = _IFADDR.unpack_from(payload)
            if index in up and scope == _SCOPE_GLOBAL and not flags & _NOT_USABLE:
                found.add(family)
        return _names(found)

    def default_routes(self) -> set[str]:
        """Return the families that have a default route."""
        found = set()
        for payload in self._questions.dump(_RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
            family, length, *_, kind, _flags = _ROUTE.unpack_from(payload)
            if not length and kind == _RTN_UNICAST and _RTA_OIF in attributes(payload[_ROUTE.size :]):
                found.add(family)
        return _names(found)

    def listens(self, protocol: str, port: int) -> bool:
        """Return whether a socket listens on a port, on whatever address; `protocol` is tcp or udp."""
        number = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
        states = _TCP_LISTEN if protocol == "tcp" else _UDP_UNCONNECTED
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _DIAG.pack(family, number, 0, 0, states)
            # All are read, so that none of this answer is taken for one of the next.
            ports = [
                struct.unpack_from(">H", payload, 4)[0]
                for payload in dump(self._sockets, _SOCK_DIAG_BY_FAMILY, _SOCK_DIAG_BY_FAMILY, body)
            ]
            if port in ports:
                return True
        return False

    def close(self) -> None:
        """Close it."""
        self._announcements.close()
        self._questions.close()
        self._sockets.close()


def _names(families: set[int]) -> set[str]:
    known = {int(socket.AF_INET): "inet", int(socket.AF_INET6): "inet6"}
    return {known[family] for family in families if family in known}
