"""Networks as the wire has them."""

from __future__ import annotations

from urllib.parse import quote

from pylxc.wire.networks import Network

Users = list[tuple[str, str, str]]
"""What has a NIC on a network, as (kind, project, name)."""


def tagged(network: Network) -> tuple[object, ...]:
    """Return what a network's entity tag is made of."""
    return network["name"], network["managed"], network["type"], network["description"], network["config"]


def unmanaged(name: str, kind: str, users: Users) -> Network:
    """Return an interface of the host that is no managed network."""
    return {
        "config": {},
        "description": "",
        "name": name,
        "type": kind,
        "used_by": urls(users),
        "managed": False,
        "status": "",
        "locations": [],
    }


def urls(users: Users) -> list[str]:
    """Return the URLs of what uses a network."""
    return [
        f"/1.0/{kind}s/{quote(name)}" + ("" if project == "default" else f"?project={quote(project)}")
        for kind, project, name in users
    ]
