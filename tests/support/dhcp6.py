"""The least of a DHCPv6 client: one exchange with rapid commit. See: RFC 8415."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterator

_SOLICIT, _REPLY = 1, 7
_CLIENTID, _IA_NA, _IAADDR, _RAPID_COMMIT, _DNS = 1, 3, 5, 14, 23


def _option(kind: int, data: bytes) -> bytes:
    return struct.pack("!HH", kind, len(data)) + data


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from("!HH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def lease(interface: str, hwaddr: str) -> tuple[str, str]:
    """Lease an address on an interface of this thread's network namespace; return it and the name server, or empty.

    Raises:
        TimeoutError: nobody answers.
    """
    transaction = secrets.token_bytes(3)
    duid = struct.pack("!HH", 3, 1) + bytes.fromhex(hwaddr.replace(":", ""))
    message = bytes((_SOLICIT,)) + transaction + _option(_CLIENTID, duid) + _option(_RAPID_COMMIT, b"")
    message += _option(_IA_NA, struct.pack("!III", 1, 0, 0))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.bind(("::", 546))
        client.settimeout(1)
        for _ in range(10):
            client.sendto(message, ("ff02::1:2", 547, 0, socket.if_nametoindex(interface)))
            try:
                answer = client.recv(4096)
            except TimeoutError:
                continue
            if answer[0] == _REPLY and answer[1:4] == transaction:
                return _parse(answer[4:])
    raise TimeoutError("no answer by DHCPv6")


def _parse(data: bytes) -> tuple[str, str]:
    address = server = ""
    for kind, value in _options(data):
        if kind == _IA_NA:
            for inner, body in _options(value[12:]):
                if inner == _IAADDR:
                    address = str(ipaddress.IPv6Address(body[:16]))
        elif kind == _DNS:
            server = str(ipaddress.IPv6Address(value[:16]))
    return address, server
