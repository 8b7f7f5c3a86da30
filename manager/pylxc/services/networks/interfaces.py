"""The host's interfaces as the API shows them."""

from __future__ import annotations

import os

from pylxc.errors import NotFound
from pylxc.kernel import netinfo
from pylxc.kernel.netlink import Link, Netlink
from pylxc.wire.networks import NetworkState, NetworkStateBridge

_KINDS = {"": "physical", "bond": "bond", "bridge": "bridge", "vlan": "vlan"}


class Interfaces:
    """Reads interfaces by netlink."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def unmanaged(self) -> list[tuple[str, str]]:
        """Return (name, type) of every interface that may be a network: all but instances' veths and their limits."""
        links = [link for link in self._netlink.links() if not link.name.startswith("veth") and link.kind != "ifb"]
        return [(link.name, _kind(link)) for link in links]

    def state(self, name: str) -> NetworkState:
        """Return how an interface is now.

        Raises:
            NotFound: there is none of that name.
        """
        link = self._netlink.find(name)
        facts = netinfo.interfaces([os.getpid()]).get(os.getpid(), [])
        interface = next((i for i in facts if link is not None and i.index == link.index), None)
        if link is None or interface is None:
            raise NotFound("Network interface not found")
        packets_in, packets_out, bytes_in, bytes_out = interface.stats[:4]
        return {
            "addresses": [
                {"family": a.family, "address": a.address, "netmask": str(a.prefix), "scope": a.scope}
                for a in interface.addresses
            ],
            "counters": {
                "bytes_received": bytes_in,
                "bytes_sent": bytes_out,
                "packets_received": packets_in,
                "packets_sent": packets_out,
            },
            "hwaddr": "" if link.loopback else link.hwaddr,
            "mtu": link.mtu,
            "state": "up" if link.up else "down",
            "type": _wire_type(interface.flags),
            "bond": None,
            "bridge": self._bridge(link) if link.kind == "bridge" else None,
            "vlan": None,
            "ovn": None,
        }

    def _bridge(self, link: Link) -> NetworkStateBridge:
        data = self._netlink.bridge_data(link.name)
        return {
            "id": "8000." + link.hwaddr.replace(":", ""),
            "stp": bool(data.get("br_stp_state", 0)),
            "forward_delay": int(data.get("br_forward_delay", 0)),
            "vlan_default": int(data.get("br_vlan_default_pvid", 0)),
            "vlan_filtering": bool(data.get("br_vlan_filtering", 0)),
            "upper_devices": sorted(other.name for other in self._netlink.links() if other.master == link.index),
        }


def _kind(link: Link) -> str:
    return "loopback" if link.loopback else _KINDS.get(link.kind, "unknown")


def _wire_type(flags: int) -> str:
    if flags & netinfo.IFF_LOOPBACK:
        return "loopback"
    if flags & netinfo.IFF_POINTOPOINT:
        return "point-to-point"
    return "broadcast" if flags & netinfo.IFF_BROADCAST else "unknown"
