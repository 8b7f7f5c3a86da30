"""The filters of `pylxc list`."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_SPECIAL = frozenset("\\^$.|?*+()[]{}")


def matches(instance: dict[str, Any], filters: list[str]) -> bool:
    """Return whether an instance (with its state, for ipv4= and ipv6=) satisfies all filters."""
    return all(_matches(instance, text) for text in filters)


def _matches(instance: dict[str, Any], text: str) -> bool:
    key, equals, value = text.partition("=")
    if not equals:
        return str(instance["name"]).startswith(text) or full_match(text, str(instance["name"]))
    if key in {"type", "status", "architecture", "location"}:
        return str(instance.get(key, "")).lower() in value.lower().split(",")
    if key in {"name", "description", "ephemeral", "stateful", "project"}:
        return full_match(value.lower(), str(instance.get(key, "")).lower())
    if key in {"ipv4", "ipv6"}:
        return _has_address(instance, "inet" if key == "ipv4" else "inet6", value)
    for name, present in (instance.get("expanded_config") or {}).items():
        if key_matches(key, name) and (present == value or full_match(value, str(present))):
            return True
    return False


def full_match(pattern: str, text: str) -> bool:
    """Return whether a regular expression fits all of `text`, or where it has ^ or $, as these say."""
    if not _SPECIAL.intersection(pattern):
        return pattern == text
    try:
        found = re.search(pattern if "^" in pattern or "$" in pattern else f"^(?:{pattern})$", text)
    except re.error:
        return False
    return found is not None


def key_matches(short: str, full: str) -> bool:
    """Return whether `short` is an abbreviation of the key `full`: u.x of user.x."""
    wanted, parts = short.split("."), full.split(".")
    return len(wanted) == len(parts) and all(part.startswith(want) for want, part in zip(wanted, parts, strict=True))


def _has_address(instance: dict[str, Any], family: str, value: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        networks = [ip_network(one, strict=False) for one in value.split(",")]
    except ValueError:
        return False
    interfaces = ((instance.get("state") or {}).get("network") or {}).values()
    present = [a["address"] for i in interfaces for a in i.get("addresses") or [] if a["family"] == family]
    return any(ip_address(address) in network for address in present for network in networks)
