"""Configuration keys of projects.

See: LXD 5.0 doc/projects.md
"""

from __future__ import annotations

from pylxc import validate as v
from pylxc.config.key import Key, Table

FEATURES = ("images", "networks", "profiles", "storage.volumes")

_BLOCK = v.one_of("allow", "block")
_MANAGED = v.one_of("allow", "block", "managed")


def _restriction(name: str, what: str, default: str = "block", check: v.Check = _BLOCK, *, acts: bool = True) -> Key:
    return Key(name=f"restricted.{name}", type="string", check=check, default=default, acts=acts, live=True, help=what)


def _text(name: str, what: str, check: v.Check = v.anything, *, acts: bool = True) -> Key:
    return _restriction(name, what, default="", check=v.list_of(check), acts=acts)


def _subnet_of_uplink(value: str) -> None:
    """Check `UPLINK:SUBNET`."""
    uplink, _, subnet = value.partition(":")
    v.interface_name(uplink)
    v.either(v.ipv4_network, v.ipv6_network)(subnet)


PROJECT = Table(
    "project",
    "Projects",
    (
        Key(name="features.images", type="bool", check=v.boolean, default="false", live=True,
            help="Whether the project has images and aliases of its own (true in a new project)."),
        Key(name="features.networks", type="bool", check=v.boolean, default="false", live=True,
            help="Whether the project has networks of its own."),
        Key(name="features.profiles", type="bool", check=v.boolean, default="false", live=True,
            help="Whether the project has profiles of its own (true in a new project)."),
        Key(name="features.storage.volumes", type="bool", check=v.boolean, default="false", live=True,
            help="Whether the project has custom volumes of its own (true in a new project)."),
        Key(name="backups.compression_algorithm", type="string", check=v.compression, live=True,
            help="Compression of backups, in place of the server's."),
        Key(name="images.auto_update_cached", type="bool", check=v.boolean, live=True,
            help="Whether cached images are kept up to date, in place of the server's."),
        Key(name="images.auto_update_interval", type="integer", check=v.integer(0), live=True,
            help="Hours between updates of images, in place of the server's."),
        Key(name="images.compression_algorithm", type="string", check=v.compression, live=True,
            help="Compression of new images, in place of the server's."),
        Key(name="images.default_architecture", type="string", acts=False, live=True,
            help="Architecture to be preferred in images."),
        Key(name="images.remote_cache_expiry", type="integer", check=v.integer(0), live=True,
            help="Days after which an unused cached image is dropped, in place of the server's."),
        Key(name="limits.containers", type="integer", check=v.integer(0), live=True,
            help="Number of containers."),
        Key(name="limits.cpu", type="integer", check=v.integer(0), live=True,
            help="Sum of all instances' limits.cpu."),
        Key(name="limits.disk", type="size", check=v.size, live=True, help="Sum of all volumes' sizes."),
        Key(name="limits.instances", type="integer", check=v.integer(0), live=True,
            help="Number of instances."),
        Key(name="limits.memory", type="size", check=v.size, live=True,
            help="Sum of all instances' limits.memory."),
        Key(name="limits.networks", type="integer", check=v.integer(0), live=True,
            help="Number of networks."),
        Key(name="limits.processes", type="integer", check=v.integer(0), live=True,
            help="Sum of all instances' limits.processes."),
        Key(name="limits.virtual-machines", type="integer", check=v.integer(0), live=True,
            help="Number of virtual machines."),
        Key(name="restricted", type="bool", check=v.boolean, default="false", live=True,
            help="Whether what follows is restricted."),
        _restriction("backups", "Backups."),
        _restriction("cluster.target", "Choosing a cluster member; there are none.", acts=False),
        _text("cluster.groups", "Cluster groups that may be chosen, with commas.", acts=False),
        _restriction("containers.interception", "security.syscalls.intercept keys.",
                     check=v.one_of("allow", "block", "full")),
        _restriction("containers.lowlevel", "raw.lxc, raw.idmap and the like."),
        _restriction("containers.nesting", "security.nesting."),
        _restriction("containers.privilege", "Privileged containers.", "unprivileged",
                     v.one_of("allow", "unprivileged", "isolated")),
        _restriction("devices.disk", "Disks other than the root disk.", "managed", _MANAGED),
        _text("devices.disk.paths", "Directories that a disk's source has to be in, with commas; unset: any.",
              v.absolute_path),
        _restriction("devices.gpu", "GPU devices."),
        _restriction("devices.infiniband", "Infiniband devices."),
        _restriction("devices.nic", "Network interfaces.", "managed", _MANAGED),
        _restriction("devices.pci", "PCI devices."),
        _restriction("devices.proxy", "Proxy devices."),
        _restriction("devices.unix-block", "Block devices."),
        _restriction("devices.unix-char", "Character devices."),
        _restriction("devices.unix-hotplug", "Hot-plugged devices."),
        _restriction("devices.usb", "USB devices."),
        _text("idmap.gid", "Host groups and ranges of them that raw.idmap may name, with commas.", v.id_range),
        _text("idmap.uid", "Host users and ranges of them that raw.idmap may name, with commas.", v.id_range),
        _text("networks.access", "Networks that may be used, with commas; unset: all."),
        _text("networks.subnets", "Subnets that forwards, NAT and routes may take, as UPLINK:SUBNET, with commas.",
              _subnet_of_uplink),
        _text("networks.uplinks", "Interfaces of the host that the project's bridges may hold, with commas."),
        _text("networks.zones", "DNS zones that may be used, with commas; there are none.", acts=False),
        _restriction("snapshots", "Snapshots."),
        _restriction("virtual-machines.lowlevel", "raw.qemu and the like; there are no virtual machines.", acts=False),
        Key(name="user.*", type="string", live=True, help="Free for the user."),
    ),
)  # fmt: skip
