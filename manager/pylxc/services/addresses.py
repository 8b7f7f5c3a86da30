"""Where a server that listens on an address can be reached."""

from __future__ import annotations

import ipaddress
import os

from pylxc import validate
from pylxc.kernel import netinfo

PORT = 8443
"""Of a server that names none."""


def reachable(listen: str) -> list[str]:
    """Return the addresses, as HOST:PORT, at which other hosts reach what listens on `listen`.

    Args:
        listen: HOST, HOST:PORT or :PORT; see `validate.listen_parts`.
    """
    host, port = validate.listen_parts(listen)
    if host and not is_any(host):
        return [joined(host, port or PORT)]
    own = netinfo.interfaces([os.getpid()]).get(os.getpid(), [])
    found = [address for interface in own for address in interface.addresses if address.scope == "global"]
    return [
        joined(address.address, port or PORT)
        for address in found
        if (host != "0.0.0.0" or address.family == "inet")  # noqa: S104 - what listens on it is asked for
        and ipaddress.ip_address(address.address).is_loopback is False
    ]


def is_any(host: str) -> bool:
    """Tell whether a host stands for every address of this one."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def joined(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
