"""The one DHCP message that the host sends: an instance that is deleted gives its address back."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct

_SERVER_PORT = 67
_MAGIC = b"\x63\x82\x53\x63"
_OPTION_TYPE, _OPTION_SERVER, _OPTION_END = 53, 54, 255
_RELEASE = 7


def release(server: str, address: str, hwaddr: str) -> None:
    """Send DHCPRELEASE for a lease; nobody answers.

    Args:
        server: the bridge's address, where dnsmasq listens.
        address: what is given back.
        hwaddr: whose it was.

    See: RFC 2131, section 4.4.6
    """
    mac = bytes.fromhex(hwaddr.replace(":", ""))
    packet = struct.pack("!BBBBIHH", 1, 1, 6, 0, secrets.randbits(32), 0, 0)
    packet += ipaddress.IPv4Address(address).packed + bytes(12) + mac.ljust(16, b"\0") + bytes(192) + _MAGIC
    packet += bytes((_OPTION_TYPE, 1, _RELEASE, _OPTION_SERVER, 4)) + ipaddress.IPv4Address(server).packed
    packet += bytes((_OPTION_END,))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.sendto(packet, (server, _SERVER_PORT))
