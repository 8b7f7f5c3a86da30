"""Kernel settings of the network namespace that the daemon is in. See: linux/Documentation/networking/ip-sysctl.rst."""

from __future__ import annotations

import os

_ROOT = "/proc/sys"


def read(key: str) -> str | None:
    """Return a setting (`net/ipv4/ip_forward`), None when the kernel does not have it."""
    try:
        with open(f"{_ROOT}/{key}", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def write(key: str, value: str, *, optional: bool = False) -> None:
    """Change a setting unless it is so; with `optional` one that the kernel does not have is passed over.

    Raises:
        OSError: it cannot be written.
    """
    if read(key) == value:
        return
    try:
        with open(f"{_ROOT}/{key}", "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        if not optional:
            raise


def ipv6_works() -> bool:
    """Return whether interfaces of this host may have IPv6 addresses."""
    return read("net/ipv6/conf/all/disable_ipv6") == "0"


def forward_ipv6() -> None:
    """Forward IPv6 without losing the host's own default route.

    A host that forwards takes no more router advertisements, unless it is told (2) to do so all the same.
    """
    if read("net/ipv6/conf/all/forwarding") == "1":
        return
    for name in os.listdir(f"{_ROOT}/net/ipv6/conf"):
        if read(f"net/ipv6/conf/{name}/accept_ra") == "1":
            write(f"net/ipv6/conf/{name}/accept_ra", "2")
    write("net/ipv6/conf/all/forwarding", "1")
