"""Addresses of proxy devices: `tcp|udp:ADDRESS:PORTS` and `unix:PATH`, as the dialect writes them."""

from __future__ import annotations

import ipaddress

from pylxc.errors import BadRequest
from pylxc.runtime.spec import Endpoint

_PATH_BYTES = 107
"""What a unix socket's address has room for. See: unix(7)."""
_LAST_PORT = 65535


def parse(text: str) -> Endpoint:
    """Return the endpoint that `listen` or `connect` names; no address means all of them.

    Raises:
        BadRequest: it is malformed.
    """
    kind, _, rest = text.partition(":")
    if kind not in ("tcp", "udp", "unix"):
        raise BadRequest(f"Unknown connection type {kind!r}", hint="tcp:ADDRESS:PORTS, udp:ADDRESS:PORTS or unix:PATH")
    if kind == "unix":
        return Endpoint(kind=kind, address=_path(rest))
    address, colon, ports = rest.rpartition(":")
    if not colon:
        raise BadRequest(f"Invalid address {text!r}: a port is missing", hint=f"{kind}:ADDRESS:PORTS")
    return Endpoint(kind=kind, address=_address(address), ports=parse_ports(ports))


def parse_ports(text: str) -> tuple[int, ...]:
    """Return the ports of a list of ports and ranges, such as `80-90,443`.

    Raises:
        BadRequest: it is malformed or names a port twice.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        found += range(_port(first), (_port(last) if dash else _port(first)) + 1)
        if dash and int(first) > int(last):
            raise BadRequest(f"Invalid port range {part!r}: it runs backwards")
    if len(set(found)) != len(found):
        raise BadRequest(f"Invalid ports {text!r}: a port is named twice")
    return tuple(found)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _LAST_PORT):
        raise BadRequest(f"Invalid port {text!r}: a number from 1 to {_LAST_PORT} is needed")
    return int(text)


def _address(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare:
        return "::"
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise BadRequest(f"Invalid IP address {bare!r}") from None
    if address.version == 6 and bare == text:
        raise BadRequest(f"Invalid address {text!r}: an IPv6 address stands in brackets")
    if "%" in bare:
        raise BadRequest(f"Invalid IP address {bare!r}: it must not name an interface")
    return address.compressed


def _path(text: str) -> str:
    if len(text) < 2 or text[0] not in "/@" or "\0" in text:
        raise BadRequest(f"Invalid unix socket {text!r}: an absolute path, or @ and a name, is needed")
    if len(text.encode()) > _PATH_BYTES:
        raise BadRequest(f"Invalid unix socket {text!r}: more than {_PATH_BYTES} bytes")
    return text
