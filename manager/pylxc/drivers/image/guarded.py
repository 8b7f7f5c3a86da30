"""Connections to image servers that lead to no address of this host alone by a name, see `reach`."""

from __future__ import annotations

import socket

import urllib3
from urllib3 import connection, connectionpool, exceptions

from pylxc.drivers.image.reach import is_near, is_near_address


class _Connection(connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        """Connect to one of the addresses that the name has now, if none of them is near."""
        name = self._dns_host
        if is_near(name):
            return super()._new_conn()
        try:
            found = socket.getaddrinfo(name, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise exceptions.NameResolutionError(self.host, self, socket.gaierror(str(error))) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if any(is_near_address(address) for address in addresses):
            text = "its name is one of this host's own address; what is here is asked for by its address"
            raise exceptions.NewConnectionError(self, text) from OSError(text)
        try:
            return self._first(addresses)
        finally:
            self._dns_host = name

    def _first(self, addresses: list[str]) -> socket.socket:
        for address in addresses[:-1]:
            self._dns_host = address
            try:
                return super()._new_conn()
            except exceptions.HTTPError:
                continue
        self._dns_host = addresses[-1]
        return super()._new_conn()


class _Pool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _Connection


class GuardedPoolManager(urllib3.PoolManager):
    """urllib3's, whose connections lead to no address of this host alone by a name."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.pool_classes_by_scheme = {"https": _Pool}
