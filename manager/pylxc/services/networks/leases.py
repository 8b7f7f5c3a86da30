"""The addresses that are in use on a managed network, as the API lists them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from pylxc.config.network import BRIDGE
from pylxc.drivers.network.driver import Host, Lease
from pylxc.wire.networks import NetworkLease


def listed(
    network: str, config: Mapping[str, str], hosts: Iterable[Host], leased: Iterable[Lease]
) -> list[NetworkLease]:
    """Return the network's own addresses, those that instances always get, and those that they have for a time.

    Args:
        network: its name.
        config: its configuration.
        hosts: the instances' interfaces on it.
        leased: what DHCP gave out.
    """
    hosts = list(hosts)
    found: dict[str, NetworkLease] = {}

    def add(hostname: str, hwaddr: str, address: str, kind: str) -> None:
        lease: NetworkLease = {
            "hostname": hostname, "hwaddr": hwaddr, "address": address, "type": kind, "location": "none"
        }  # fmt: skip
        found.setdefault(address, lease)

    for family in ("ipv4", "ipv6"):
        address = config.get(f"{family}.address", "none")
        if address != "none":
            add(f"{network}.gw", "", address.partition("/")[0], "gateway")
    for host in hosts:
        for address in (host.ipv4, host.ipv6):
            if address:
                add(host.name, host.hwaddr, address, "static")
    names = {host.hwaddr: host.name for host in hosts}
    for lease in leased:
        add(lease.hostname or names.get(lease.hwaddr, ""), lease.hwaddr, lease.address, "dynamic")
    subnet = config.get("ipv6.address", "none")
    if subnet != "none" and not BRIDGE.is_true(config, "ipv6.dhcp.stateful"):
        for host in hosts:
            add(host.name, host.hwaddr, _advertised(subnet, host.hwaddr), "dynamic")
    return list(found.values())


def _advertised(subnet: str, hwaddr: str) -> str:
    """Return the address that an interface makes of a router advertisement. See: RFC 4291, appendix A."""
    octets = bytearray.fromhex(hwaddr.replace(":", ""))
    octets[0] ^= 2
    interface = int.from_bytes(octets[:3] + b"\xff\xfe" + octets[3:])
    return str(ipaddress.IPv6Interface(subnet).network.network_address + interface)
