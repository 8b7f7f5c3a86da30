"""Configuration keys of networks.

See: LXD 5.0 doc/networks.md, reference/network_bridge.md, network_macvlan.md, network_physical.md
"""

from __future__ import annotations

import re

from pylxc import validate as v
from pylxc.config.key import Key, Table
from pylxc.errors import BadRequest

USER = Key(name="user.*", type="string", live=True, help="Free for the user.")

_LISTED_V4 = v.list_of(v.either(v.ipv4_network, v.ipv4))
_LISTED_V6 = v.list_of(v.either(v.ipv6_network, v.ipv6))


def _expiry(value: str) -> None:
    if not re.fullmatch(r"[1-9][0-9]{0,8}[smhdw]?|infinite", value):
        raise BadRequest(f"{value!r} is no time", hint="such as 90m, 12h, 7d, or infinite")


def _ranges(address: v.Check) -> v.Check:
    return v.list_of(v.list_of(address, "-"))


def _addresses(family: str, address: v.Check, cidr: v.Check, routes: v.Check) -> tuple[Key, ...]:
    """Return the rows that IPv4 and IPv6 have in common."""
    return (
        Key(name=f"{family}.address", type="address", check=v.either(v.one_of("auto", "none"), cidr), live=True,
            unset="auto on creation", help="Address of the bridge in CIDR notation, auto, or none."),
        Key(name=f"{family}.dhcp", type="bool", check=v.boolean, default="true", live=True,
            condition=f"{family}.address is set", help="Whether addresses are handed out by DHCP."),
        Key(name=f"{family}.dhcp.expiry", type="string", check=_expiry, default="1h", live=True,
            help="When DHCP leases expire: a number of s, m, h, d or w, or infinite."),
        Key(name=f"{family}.dhcp.ranges", type="list", check=_ranges(address), live=True,
            unset="all addresses", help="Ranges for DHCP as FIRST-LAST, with commas."),
        Key(name=f"{family}.firewall", type="bool", check=v.boolean, default="true", live=True,
            help="Whether the network's traffic is let through other firewalls of the host."),
        Key(name=f"{family}.nat", type="bool", check=v.boolean, default="false", live=True,
            help="Whether to masquerade (true when the address was chosen by auto)."),
        Key(name=f"{family}.nat.address", type="address", check=address, live=True,
            help="Source address of outgoing traffic, instead of the host's."),
        Key(name=f"{family}.nat.order", type="string", check=v.one_of("before", "after"), default="before", live=True,
            help="Whether NAT comes before or after that of other programs."),
        Key(name=f"{family}.ovn.ranges", type="list", refused=True, help="Ranges for OVN routers."),
        Key(name=f"{family}.routes", type="list", check=routes, live=True,
            help="More subnets to be routed to the bridge, with commas."),
        Key(name=f"{family}.routing", type="bool", check=v.boolean, default="true", live=True,
            help="Whether traffic is routed in and out of the bridge."),
    )  # fmt: skip


BRIDGE = Table(
    "network",
    "Networks of type bridge",
    (
        Key(name="bridge.driver", type="string", check=v.one_of("native", "openvswitch"), default="native",
            help="Driver of the bridge; openvswitch is not supported."),
        Key(name="bridge.external_interfaces", type="list", check=v.list_of(v.interface_name), live=True,
            help="Unconfigured interfaces to put into the bridge, with commas."),
        Key(name="bridge.hwaddr", type="mac", check=v.mac, live=True, help="MAC address of the bridge."),
        Key(name="bridge.mode", type="string", check=v.one_of("standard", "fan"), default="standard",
            help="Mode of the bridge; fan is not supported."),
        Key(name="bridge.mtu", type="integer", check=v.integer(68, 65535), default="1500", live=True,
            help="MTU of the bridge."),
        Key(name="dns.domain", type="string", check=v.domain, default="lxd", live=True, help="Domain of DHCP and DNS."),
        Key(name="dns.mode", type="string", check=v.one_of("managed", "dynamic", "none"), default="managed", live=True,
            help="managed: names of instances; dynamic: names that they ask for; none: no names."),
        Key(name="dns.search", type="list", check=v.list_of(v.domain), live=True,
            help="Search domains, with commas; unset: dns.domain."),
        Key(name="dns.zone.forward", type="string", refused=True, help="DNS zone of forward records."),
        Key(name="dns.zone.reverse.ipv4", type="string", refused=True, help="DNS zone of IPv4 reverse records."),
        Key(name="dns.zone.reverse.ipv6", type="string", refused=True, help="DNS zone of IPv6 reverse records."),
        Key(name="fan.overlay_subnet", type="subnet", check=v.ipv4_network, refused=True, help="Overlay of a fan."),
        Key(name="fan.type", type="string", check=v.one_of("vxlan", "ipip"), refused=True, help="Tunnels of a fan."),
        Key(name="fan.underlay_subnet", type="subnet", refused=True, help="Underlay of a fan."),
        *_addresses("ipv4", v.ipv4, v.ipv4_cidr, _LISTED_V4),
        Key(name="ipv4.dhcp.gateway", type="address", check=v.ipv4, live=True,
            help="Gateway that DHCP announces; unset: the bridge."),
        *_addresses("ipv6", v.ipv6, v.ipv6_cidr, _LISTED_V6),
        Key(name="ipv6.dhcp.stateful", type="bool", check=v.boolean, default="false", live=True,
            help="Whether DHCPv6 hands out addresses instead of stateless configuration."),
        Key(name="lan.check", type="bool", check=v.boolean, default="true", live=True, condition="lan.interface is set",
            help="Whether a gateway or neighbour must answer over the bridge, or the move is undone."),
        Key(name="lan.interface", type="string", check=v.interface_name, unset="",
            help="Interface of the host whose addresses and routes the bridge takes over (pylxc's own key)."),
        Key(name="lan.persist", type="bool", check=v.boolean, default="false", condition="lan.interface is set",
            help="Whether the host's own configuration (netplan, systemd-networkd, ifupdown) has the bridge."),
        Key(name="lan.timeout", type="integer", check=v.integer(1, 3600), default="30", live=True,
            condition="lan.interface is set", help="Seconds that the gateway has to answer in."),
        Key(name="maas.subnet.ipv4", type="string", refused=True, help="Subnet in MAAS."),
        Key(name="maas.subnet.ipv6", type="string", refused=True, help="Subnet in MAAS."),
        Key(name="raw.dnsmasq", type="blob", live=True, help="Lines added to dnsmasq's configuration."),
        Key(name="security.acls", type="list", refused=True, help="ACLs of the NICs on this network, with commas."),
        *(
            Key(name=f"security.acls.default.{direction}.action", type="string", default="reject", refused=True,
                check=v.one_of("allow", "drop", "reject"), help=f"What happens to other {direction} traffic.")
            for direction in ("egress", "ingress")
        ),
        *(
            Key(name=f"security.acls.default.{direction}.logged", type="bool", check=v.boolean, default="false",
                refused=True, help=f"Whether {direction} traffic that no rule names is logged.")
            for direction in ("egress", "ingress")
        ),
        *(
            Key(name=f"tunnel.*.{name}", type=kind, check=check, refused=True, help=f"Of a tunnel: {what}.")
            for name, kind, check, what in (
                ("group", "address", v.ipv4, "multicast group (vxlan)"),
                ("id", "integer", v.integer(0), "tunnel id (vxlan)"),
                ("interface", "string", v.interface_name, "interface of the host (vxlan)"),
                ("local", "address", v.either(v.ipv4, v.ipv6), "local address"),
                ("port", "integer", v.integer(1, 65535), "port (vxlan)"),
                ("protocol", "string", v.one_of("gre", "vxlan"), "protocol"),
                ("remote", "address", v.either(v.ipv4, v.ipv6), "remote address"),
                ("ttl", "integer", v.integer(1, 255), "time to live (vxlan)"),
            )
        ),
        *(
            Key(name=f"bgp.{name}", type="string", refused=True, help=f"BGP: {what}.")
            for name, what in (
                ("ipv4.nexthop", "next hop of IPv4 prefixes"), ("ipv6.nexthop", "next hop of IPv6 prefixes"),
                ("peers.*.address", "address of a peer"), ("peers.*.asn", "AS number of a peer"),
                ("peers.*.holdtime", "hold time of a peer"), ("peers.*.password", "password of a peer"),
            )
        ),
        Key(name="volatile.bridge.hwaddr", type="mac", check=v.mac, help="MAC address that was chosen."),
        USER,
    ),
)  # fmt: skip

_PARENT = Key(name="parent", type="string", check=v.interface_name, help="Interface of the host.")
_MTU = Key(name="mtu", type="integer", check=v.integer(68, 65535), help="MTU of the interfaces.")
_VLAN = Key(name="vlan", type="integer", check=v.integer(0, 4094), help="VLAN id to attach to.")
_GVRP = Key(name="gvrp", type="bool", check=v.boolean, default="false", help="Register the VLAN by GVRP.")

MACVLAN = Table("network", "Networks of type macvlan", (_PARENT, _MTU, _VLAN, _GVRP, USER), refused=True)

PHYSICAL = Table(
    "network",
    "Networks of type physical",
    (
        _PARENT, _MTU, _VLAN, _GVRP,
        Key(name="dns.nameservers", type="list", check=v.list_of(v.either(v.ipv4, v.ipv6)), acts=False,
            help="DNS servers on this network, with commas."),
        Key(name="ipv4.gateway", type="address", check=v.ipv4_cidr, acts=False, help="IPv4 gateway with prefix."),
        Key(name="ipv6.gateway", type="address", check=v.ipv6_cidr, acts=False, help="IPv6 gateway with prefix."),
        USER,
    ),
    refused=True,
)  # fmt: skip

NETWORKS = {"bridge": BRIDGE, "macvlan": MACVLAN, "physical": PHYSICAL}
