"""Rules of the kernel's packet filter: what they are made of, and transactions of them through libnftables.

Expressions are those of libnftables' JSON; the functions here make the usual ones. A transaction acts in the network
namespace of the thread that runs it, and takes 10 ms less than the program `nft` would. Who may put which rules is
`pylxc.drivers.network.firewall`'s affair.

See: libnftables-json(5), libnftables(3)
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pylxc.errors import Unavailable

Expression = Mapping[str, Any]
Command = Mapping[str, Any]

ACCEPT: Expression = {"accept": None}
DROP: Expression = {"drop": None}
REJECT: Expression = {"reject": None}
MASQUERADE: Expression = {"masquerade": None}

# Standard priorities. See: nft(8), "Standard priority names"
DSTNAT = -100
FILTER = 0
SRCNAT = 100
BRIDGE_FILTER = -200

_OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON
# See: linux/netlink.h, linux/netfilter/nfnetlink.h
_NETLINK_NETFILTER, _SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES = 12, 270, 1, 7
_lock = threading.Lock()  # the library's parser is not safe for threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Where a base chain is called.

    Attributes:
        type: filter, nat or route.
        name: prerouting, input, forward, output, postrouting, ingress, egress.
        priority: lower numbers come first.
        policy: accept or drop.
        device: of a chain of family netdev, which sees what passes this interface only, and goes with it.
    """

    type: str
    name: str
    priority: int = FILTER
    policy: str = "accept"
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain with all its rules.

    Attributes:
        name: unique within its fragment and family.
        rules: each a sequence of expressions: what matches first, what is done last.
        family: inet, ip, ip6, bridge, netdev, arp.
        hook: None for a chain that others jump to.
    """

    name: str
    rules: tuple[tuple[Expression, ...], ...]
    family: str = "inet"
    hook: Hook | None = None


# Expressions


def match(left: Expression, right: object, operator: str = "==") -> Expression:
    """Return a comparison. `right` may be a value, or what `subnet`, `span` and `any_of` return."""
    return {"match": {"op": operator, "left": left, "right": right}}


def meta(key: str) -> Expression:
    """Return a fact on a packet: iifname, oifname, nfproto (ipv4, ipv6), l4proto, protocol, mark, ..."""
    return {"meta": {"key": key}}


def field(protocol: str, name: str) -> Expression:
    """Return a header field: `ip saddr`, `ip6 daddr`, `ether saddr`, `tcp dport`, `arp saddr ip`, ..."""
    return {"payload": {"protocol": protocol, "field": name}}


def arriving(interface: str, operator: str = "==") -> Expression:
    """Return the match for packets that come in by an interface of that name, whether it exists or not."""
    return match(meta("iifname"), interface, operator)


def leaving(interface: str, operator: str = "==") -> Expression:
    """Return the match for packets that go out by an interface of that name, whether it exists or not."""
    return match(meta("oifname"), interface, operator)


def subnet(cidr: str) -> Expression | str:
    """Return an address or subnet as the right side of a match; host bits are cleared."""
    network = ipaddress.ip_network(cidr, strict=False)
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def span(first: int, last: int) -> Expression | int:
    """Return a range of numbers (ports), both included, as the right side of a match."""
    return first if first == last else {"range": [first, last]}


def any_of(values: Iterable[object]) -> Expression:
    """Return a set of values as the right side of a match."""
    return {"set": list(values)}


def dnat(protocol: str, address: str, port: int = 0) -> Expression:
    """Return the action that sends a connection to another address, and port unless 0; `protocol` is ip or ip6."""
    return _nat("dnat", protocol, address, port)


def dnat_by_port(protocol: str, address: str, port: Expression, ports: Mapping[int, int]) -> Expression:
    """Return the action that sends each connection to another address, and to the port that `ports` has for its own."""
    pairs = [[here, there] for here, there in ports.items()]
    return {"dnat": {"family": protocol, "addr": address, "port": {"map": {"key": port, "data": {"set": pairs}}}}}


def original(protocol: str, name: str) -> Expression:
    """Return a field of a connection's first packet as it was before translation: saddr or daddr of ip or ip6."""
    return {"ct": {"key": f"{protocol} {name}", "dir": "original"}}


def snat(protocol: str, address: str) -> Expression:
    """Return the action that gives a connection another source address; `protocol` is ip or ip6."""
    return _nat("snat", protocol, address, 0)


def jump(chain: str) -> Expression:
    """Return the action that goes on in another chain of the same fragment and family."""
    return {"jump": {"target": chain}}


def _nat(kind: str, protocol: str, address: str, port: int) -> Expression:
    return {kind: {"family": protocol, "addr": address} | ({"port": port} if port else {})}


# Transactions


def run(commands: Iterable[Command]) -> list[Mapping[str, Any]]:
    """Run commands as one transaction, all of it or nothing, and return the objects that they list.

    Raises:
        Unavailable: the library is missing, or the kernel refuses.
    """
    library = _library()
    text = json.dumps({"nftables": list(commands)}).encode()
    with _lock:
        context = ctypes.c_void_p(library.nft_ctx_new(0))  # its socket is in this thread's network namespace
        try:
            library.nft_ctx_output_set_flags(context, _OUTPUT_JSON)
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            failed = library.nft_run_cmd_from_buffer(context, text)
            error: bytes = library.nft_ctx_get_error_buffer(context) or b""
            output: bytes = library.nft_ctx_get_output_buffer(context) or b""
        finally:
            library.nft_ctx_free(context)
    if failed:
        raise Unavailable(f"Cannot change the firewall's rules: {_reason(error)}")
    return [item for line in output.splitlines() for item in json.loads(line)["nftables"]]


def changes() -> socket.socket:
    """Return a socket that becomes readable when anybody changes rules in this thread's network namespace."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        events.setblocking(False)
        events.bind((0, 0))
        events.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
    except OSError:
        events.close()
        raise
    return events


def _reason(error: bytes) -> str:
    line = next(iter(error.decode(errors="replace").splitlines()), "the kernel gives no reason")
    return line.rpartition("Error: ")[2]


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        raise Unavailable("The library libnftables.so.1 is missing", hint="apt-get install nftables") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    return library
