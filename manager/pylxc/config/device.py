"""Configuration keys of instances' devices, per type.

See: LXD 5.0 doc/instances.md, section "Devices configuration"
"""

from __future__ import annotations

from collections.abc import Mapping

from pylxc import validate as v
from pylxc.config.key import Key, Table
from pylxc.errors import BadRequest, NotSupported

_COMMON = (
    Key(name="type", type="string", help="Type of the device."),
    Key(name="user.*", type="string", help="Free for the user."),
)

_MOST_ID = (1 << 32) - 2
_UID = Key(name="uid", type="integer", check=v.integer(0, _MOST_ID), default="0", help="Owner inside.")
_GID = Key(name="gid", type="integer", check=v.integer(0, _MOST_ID), default="0", help="Group inside.")
_MODE = Key(name="mode", type="mode", check=v.octal_mode, default="0660", help="Permission bits inside.")


def _required(default: str) -> Key:
    return Key(name="required", type="bool", check=v.boolean, default=default,
               help="Whether the instance fails to start without it.")  # fmt: skip


def _boot_priority() -> Key:
    return Key(name="boot.priority", type="integer", check=v.integer(0), refused=True, condition="virtual machines",
               help="Order of booting.")  # fmt: skip


NONE = Table("device", "Device none", _COMMON)

DISK = Table(
    "device",
    "Device disk",
    (
        *_COMMON,
        Key(name="path", type="path", help="Where it is mounted inside; `/` is the root disk."),
        Key(name="source", type="string",
            help="Path on the host, name of a custom volume, or `tmpfs:` for a file system in memory."),
        Key(name="pool", type="string", help="Storage pool of the volume."),
        Key(name="readonly", type="bool", check=v.boolean, default="false", help="Mount read-only."),
        Key(name="recursive", type="bool", check=v.boolean, default="false",
            help="Mount what is mounted below the source too."),
        _required("true"),
        Key(name="size", type="size", check=v.size, live=True, unset="the pool's volume.size",
            help="Most that the root disk or a tmpfs may take; 0 for no limit."),
        Key(name="size.state", type="size", check=v.size, refused=True, condition="virtual machines",
            help="Size of the volume for stateful stops."),
        Key(name="shift", type="bool", check=v.boolean, default="false",
            help="Map the ids of the source to those of the instance."),
        Key(name="propagation", type="string", default="private",
            check=v.one_of("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"),
            help="Mount propagation."),
        Key(name="raw.mount.options", type="string", help="More mount options."),
        Key(name="limits.read", type="rate", check=v.disk_rate, live=True,
            help="Limit of reads, in bytes or iops a second."),
        Key(name="limits.write", type="rate", check=v.disk_rate, live=True,
            help="Limit of writes, in bytes or iops a second."),
        Key(name="limits.max", type="rate", check=v.disk_rate, live=True,
            help="Limit of reads and of writes."),
        Key(name="ceph.cluster_name", type="string", refused=True, help="Ceph cluster."),
        Key(name="ceph.user_name", type="string", refused=True, help="Ceph user."),
        _boot_priority(),
    ),
)  # fmt: skip

_NETWORK = Key(name="network", type="string", help="Managed network, in place of nictype and parent.")
_NICTYPE = Key(name="nictype", type="string", help="How the interface is made.")
_NAME = Key(name="name", type="string", check=v.interface_name, unset="the kernel's choice",
            help="Name of the interface inside.")  # fmt: skip
_HWADDR = Key(name="hwaddr", type="mac", check=v.mac, unset="random", help="MAC address.")
_MTU = Key(name="mtu", type="integer", check=v.integer(68, 65535), unset="the parent's", help="MTU.")
_HOST_NAME = Key(name="host_name", type="string", check=v.interface_name, unset="random",
                 help="Name of the host's end.")  # fmt: skip
_PARENT = Key(name="parent", type="string", check=v.interface_name, help="Interface or bridge of the host.")
_VLAN = Key(name="vlan", type="integer", check=v.integer(1, 4094), help="VLAN of the parent to be on.")
_PORT_VLAN = Key(name="vlan", type="integer", check=v.either(v.one_of("none"), v.integer(1, 4094)),
            unset="the bridge's", help="VLAN id of untagged traffic, none for no untagged traffic.")  # fmt: skip
_GVRP = Key(name="gvrp", type="bool", check=v.boolean, default="false", help="Register the VLAN by GVRP.")
_ROUTES = tuple(
    Key(name=f"{family}.routes", type="list", check=v.list_of(check), live=True,
        help="Subnets to be routed to the interface, with commas.")
    for family, check in (("ipv4", v.ipv4_network), ("ipv6", v.ipv6_network))
)  # fmt: skip
_NIC_LIMITS = tuple(
    Key(name=f"limits.{name}", type="rate", check=v.rate, live=True, help=what)
    for name, what in (
        ("ingress", "Limit of incoming traffic, in bits a second."),
        ("egress", "Limit of outgoing traffic, in bits a second."),
        ("max", "Limit of incoming and of outgoing traffic."),
    )
)
_MAAS = tuple(
    Key(name=f"maas.subnet.{family}", type="string", refused=True, help="Subnet in MAAS.")
    for family in ("ipv4", "ipv6")
)


def _address(family: str, check: v.Check, what: str, *, live: bool = False) -> Key:
    return Key(name=f"{family}.address", type="address", check=check, live=live, help=what)


_STATIC = "Address that DHCP always hands out to the interface."

NIC_BRIDGED = Table(
    "device",
    "Device nic, bridged",
    (
        *_COMMON, _NICTYPE, _NETWORK, _PARENT, _NAME, _HWADDR, _HOST_NAME, _MTU, _PORT_VLAN,
        Key(name="vlan.tagged", type="list", check=v.list_of(v.vlan_range),
            help="VLAN ids or ranges of tagged traffic, with commas."),
        _address("ipv4", v.either(v.one_of("none"), v.ipv4), _STATIC, live=True),
        _address("ipv6", v.either(v.one_of("none"), v.ipv6), _STATIC, live=True),
        *_ROUTES,
        *(Key(name=f"{family}.routes.external", type="list", refused=True, help="Subnets to be announced by BGP.")
          for family in ("ipv4", "ipv6")),
        *_NIC_LIMITS,
        *(Key(name=f"security.{what}_filtering", type="bool", check=v.boolean, default="false", live=True,
              help=f"Let the instance use no other {what} address than its own.") for what in ("mac", "ipv4", "ipv6")),
        Key(name="security.port_isolation", type="bool", check=v.boolean, default="false",
            help="Keep it from other isolated interfaces of the bridge."),
        Key(name="security.acls", type="list", refused=True, help="Network ACLs, with commas."),
        *(Key(name=f"security.acls.default.{direction}.{what}", type="string", refused=True,
              help=f"What happens to {direction} traffic that no rule names.")
          for direction in ("ingress", "egress") for what in ("action", "logged")),
        *_MAAS, _boot_priority(),
    ),
)  # fmt: skip

NIC_MACVLAN = Table(
    "device", "Device nic, macvlan",
    (*_COMMON, _NICTYPE, _NETWORK, _PARENT, _NAME, _HWADDR, _MTU, _VLAN, _GVRP, *_MAAS, _boot_priority()),
)  # fmt: skip

NIC_P2P = Table(
    "device", "Device nic, p2p",
    (*_COMMON, _NICTYPE, _NAME, _HWADDR, _HOST_NAME, _MTU, *_ROUTES, *_NIC_LIMITS, _boot_priority()),
)  # fmt: skip

NIC_PHYSICAL = Table(
    "device", "Device nic, physical",
    (*_COMMON, _NICTYPE, _NETWORK, _PARENT, _NAME, _HWADDR, _MTU, _VLAN, _GVRP, *_MAAS, _boot_priority()),
)  # fmt: skip

_TABLES = tuple(
    Key(name=f"{family}.host_table", type="integer", check=v.integer(0),
        help="More routing tables of the host to put the routes in.") for family in ("ipv4", "ipv6")
)  # fmt: skip

NIC_ROUTED = Table(
    "device", "Device nic, routed",
    (
        *_COMMON, _NICTYPE, _PARENT, _NAME, _HWADDR, _HOST_NAME, _MTU, _VLAN, _GVRP, *_ROUTES,
        _address("ipv4", v.list_of(v.ipv4), "Addresses of the interface, with commas."),
        _address("ipv6", v.list_of(v.ipv6), "Addresses of the interface, with commas."),
        *(Key(name=f"{family}.gateway", type="string", check=v.one_of("auto", "none"), default="auto",
              help="Whether a default gateway is set.") for family in ("ipv4", "ipv6")),
        *_TABLES,
        Key(name="ipv4.host_address", type="address", check=v.ipv4, default="169.254.0.1", help="The host's address."),
        Key(name="ipv6.host_address", type="address", check=v.ipv6, default="fe80::1", help="The host's address."),
        *(Key(name=f"{family}.neighbor_probe", type="bool", check=v.boolean, default="true",
              help="Whether to make sure that the parent network has nobody of that address.")
          for family in ("ipv4", "ipv6")),
        *_NIC_LIMITS,
    ),
)  # fmt: skip

NIC_IPVLAN = Table(
    "device", "Device nic, ipvlan",
    (
        *_COMMON, _NICTYPE, _PARENT, _NAME, _MTU, _VLAN, _GVRP,
        _address("ipv4", v.list_of(v.either(v.ipv4, v.ipv4_cidr)), "Addresses of the interface, with commas."),
        _address("ipv6", v.list_of(v.either(v.ipv6, v.ipv6_cidr)), "Addresses of the interface, with commas."),
        *(Key(name=f"{family}.gateway", type="string", check=v.either(v.one_of("auto", "none"), check),
              unset="auto with mode l3s", help="auto or none; with mode l2 the address of the gateway.")
          for family, check in (("ipv4", v.ipv4), ("ipv6", v.ipv6))),
        *_TABLES,
        Key(name="mode", type="string", check=v.one_of("l2", "l3s"), default="l3s", help="Mode of the interface."),
    ),
)  # fmt: skip

PROXY = Table(
    "device",
    "Device proxy",
    (
        *_COMMON,
        Key(name="listen", type="string", help="Address and ports to listen on: tcp|udp:ADDRESS:PORTS, unix:PATH."),
        Key(name="connect", type="string", help="Address and ports to connect to."),
        Key(name="bind", type="string", check=v.one_of("host", "guest", "instance", "container"), default="host",
            help="On which side it listens."),
        Key(name="nat", type="bool", check=v.boolean, default="false", help="Forward by NAT instead of by a process."),
        Key(name="proxy_protocol", type="bool", check=v.boolean, default="false",
            help="Tell the client's address by HAProxy's protocol."),
        Key(name="uid", type="integer", check=v.integer(0), default="0", help="Owner of a listening unix socket."),
        Key(name="gid", type="integer", check=v.integer(0), default="0", help="Group of a listening unix socket."),
        Key(name="mode", type="mode", check=v.octal_mode, default="0644", help="Mode of a listening unix socket."),
        Key(name="security.uid", type="integer", check=v.integer(0), unset="0 for unix sockets, else nobody",
            help="User that it connects as, on the side that it connects on."),
        Key(name="security.gid", type="integer", check=v.integer(0), unset="0 for unix sockets, else nobody",
            help="Group that it connects as."),
    ),
)  # fmt: skip


def _unix(title: str) -> Table:
    numbers = (
        Key(name="major", type="integer", check=v.integer(0, 4095), unset="that of the source", help="Major number."),
        Key(
            name="minor", type="integer", check=v.integer(0, 1048575), unset="that of the source", help="Minor number."
        ),
    )
    paths = (
        Key(name="source", type="path", check=v.absolute_path, unset="path", help="Path on the host."),
        Key(name="path", type="path", check=v.absolute_path, unset="source", help="Path inside."),
    )
    return Table("device", title, (*_COMMON, *paths, *numbers, _UID, _GID, _MODE, _required("true")))


UNIX_CHAR = _unix("Device unix-char")
UNIX_BLOCK = _unix("Device unix-block")

_IDS = (
    Key(name="vendorid", type="string", help="Vendor id in hexadecimal."),
    Key(name="productid", type="string", help="Product id in hexadecimal."),
)

UNIX_HOTPLUG = Table(
    "device", "Device unix-hotplug", (*_COMMON, *_IDS, _UID, _GID, _MODE, _required("false")), refused=True
)
USB = Table("device", "Device usb", (*_COMMON, *_IDS, _UID, _GID, _MODE, _required("false")), refused=True)

GPU = Table(
    "device", "Device gpu",
    (
        *_COMMON, *_IDS, _UID, _GID, _MODE,
        Key(name="gputype", type="string", check=v.one_of("physical", "mdev", "mig", "sriov"), default="physical",
            help="Kind of GPU."),
        Key(name="id", type="string", help="Number of the card."),
        Key(name="pci", type="string", help="PCI address."),
        Key(name="mdev", type="string", refused=True, help="Profile of a mediated device."),
        *(Key(name=f"mig.{name}", type="string", refused=True, help="A GPU instance of NVIDIA MIG.")
          for name in ("ci", "gi", "uuid")),
    ),
    refused=True,
)  # fmt: skip

TPM = Table(
    "device", "Device tpm",
    (
        *_COMMON,
        Key(name="path", type="path", check=v.absolute_path, help="Path inside."),
        Key(name="pathrm", type="path", check=v.absolute_path, help="Path of the resource manager inside."),
    ),
    refused=True,
)  # fmt: skip

NICS = {
    "bridged": NIC_BRIDGED,
    "ipvlan": NIC_IPVLAN,
    "macvlan": NIC_MACVLAN,
    "p2p": NIC_P2P,
    "physical": NIC_PHYSICAL,
    "routed": NIC_ROUTED,
}

DEVICES = {
    "disk": DISK,
    "gpu": GPU,
    "none": NONE,
    "proxy": PROXY,
    "tpm": TPM,
    "unix-block": UNIX_BLOCK,
    "unix-char": UNIX_CHAR,
    "unix-hotplug": UNIX_HOTPLUG,
    "usb": USB,
}


_REFUSED = ("infiniband", "pci")
_REFUSED_NICS = ("ovn", "sriov")
"""Of the dialect, and for hardware or for networks that this server does not know."""


def table(device: Mapping[str, str], nictype: str = "bridged") -> Table:
    """Return the keys that a device may have.

    Args:
        device: its configuration.
        nictype: how a `nic` is made that names a network instead of a nictype.

    Raises:
        BadRequest: the type is missing or unknown.
        NotSupported: the dialect knows it, and this server does not do it.
    """
    kind = device.get("type", "")
    if kind in _REFUSED:
        raise NotSupported(f"Devices of type {kind} are not supported")
    if kind == "nic" and device.get("nictype") in _REFUSED_NICS:
        raise NotSupported(f"NIC devices with nictype={device['nictype']} are not supported")
    if kind == "nic":
        found = NICS.get(device.get("nictype") or nictype)
        if found is None:
            v.known(device.get("nictype") or nictype, NICS, "nictype")
    else:
        found = DEVICES.get(kind)
    if found is None:
        if not kind:
            raise BadRequest("Missing device type")
        raise BadRequest(f"Unknown device type {kind!r}", hint=f"one of {', '.join(sorted((*DEVICES, 'nic')))}")
    return found
