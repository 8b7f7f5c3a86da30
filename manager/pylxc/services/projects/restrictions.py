"""What a restricted project forbids, as tables: keys of configuration, kinds of devices, networks.

See: LXD doc reference/projects, project restrictions. What has no row here is not there to be forbidden (clusters,
virtual machines), or is refused for all projects.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pylxc import validate
from pylxc.config.instance import VOLATILE_PREFIX
from pylxc.config.project import PROJECT
from pylxc.errors import Forbidden
from pylxc.services.instances import idmap
from pylxc.services.instances.expand import is_root_disk
from pylxc.services.projects.holdings import Entity, Holdings, entities

Config = Mapping[str, str]

_INTERCEPT = "security.syscalls.intercept."
_INTERCEPTED = ("bpf", "bpf.devices", "mknod", "mount", "mount.fuse", "sched_setscheduler", "setxattr", "sysinfo")
"""Interceptions that leave the host safe."""

_INTERCEPTED_FULL = (f"{_INTERCEPT}mount.allowed", f"{_INTERCEPT}mount.shift")
"""Those that have the host's kernel read what a guest has written."""

_LOW_LEVEL = (
    "boot.host_shutdown_timeout",
    "linux.kernel_modules",
    "raw.apparmor",
    "raw.lxc",
    "raw.seccomp",
    "security.devlxd.images",
    "security.idmap.base",
    "security.idmap.size",
)

_SAFE_VOLATILE = ("apply_template", "base_image", "last_state.power", "*.apply_quota", "*.hwaddr")


def is_restricted(config: Config) -> bool:
    """Return whether a project is restricted."""
    return PROJECT.is_true(config, "restricted")


def _value(config: Config, restriction: str) -> str:
    return PROJECT.value(config, f"restricted.{restriction}")


def _listed(config: Config, restriction: str) -> list[str]:
    return _items(_value(config, restriction))


def _items(text: str) -> list[str]:
    return [item for part in text.split(",") if (item := part.strip())]


# Keys of instances and profiles


@dataclass(frozen=True, slots=True)
class _KeyRule:
    """What a restriction says about keys of configuration.

    Attributes:
        restriction: its key, without `restricted.`.
        keys: which keys.
        allows: takes the restriction's value and the key's.
        complaint: what is wrong; None for the use of the key as such.
    """

    restriction: str
    keys: Collection[str]
    allows: Callable[[str, str], bool]
    complaint: str | None = None


def _allow_or_off(restriction: str, value: str) -> bool:
    return restriction in ("allow", "full") or value == "" or validate.is_false(value)


KEY_RULES = (
    _KeyRule("containers.nesting", ("security.nesting",), _allow_or_off, "Container nesting is forbidden"),
    _KeyRule("containers.privilege", ("security.privileged",), _allow_or_off, "Privileged containers are forbidden"),
    _KeyRule(
        "containers.interception",
        tuple(f"{_INTERCEPT}{name}" for name in _INTERCEPTED),
        _allow_or_off,
        "Container syscall interception is forbidden",
    ),
    _KeyRule("containers.interception", _INTERCEPTED_FULL, lambda restriction, _value: restriction == "full"),
    _KeyRule("containers.lowlevel", _LOW_LEVEL, lambda restriction, _value: restriction == "allow"),
)


def _check_keys(project: Config, entity: Entity, whose: str) -> Iterator[str]:
    """Yield what is wrong with the configuration of an instance or a profile."""
    for rule in KEY_RULES:
        restriction = _value(project, rule.restriction)
        for key in rule.keys:
            value = entity.config.get(key, "")
            if value and not rule.allows(restriction, value):
                yield (
                    f'Invalid value "{value}" for config "{key}" on {whose}: {rule.complaint}'
                    if rule.complaint
                    else f'Use of low-level config "{key}" on {whose} is forbidden'
                )
    if (
        _value(project, "containers.privilege") == "isolated"
        and entity.kind != "profile"
        and not validate.is_true(entity.config.get("security.idmap.isolated"))
    ):
        yield f"Non-isolated containers are forbidden: {whose} needs security.idmap.isolated=true"
    if entity.config.get("raw.idmap") and _value(project, "containers.lowlevel") != "allow":
        yield from _check_idmap(project, entity.config["raw.idmap"], whose)


def _check_idmap(project: Config, raw: str, whose: str) -> Iterator[str]:
    allowed = {kind: list(map(_range, _listed(project, f"idmap.{kind}"))) for kind in ("uid", "gid")}
    for number, (kinds, wanted) in enumerate(idmap.raw_ranges(raw)):
        first, last = wanted.outside, wanted.outside + wanted.length - 1
        if not all(any(low <= first and last <= high for low, high in allowed[kind]) for kind in kinds):
            yield f'Use of low-level "raw.idmap" element {number} on {whose} is forbidden'


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def refuse_volatile(project: Config, name: str, given: Config, current: Config) -> None:
    """Check the volatile keys that a client gives an instance: they reach what the server does on the host.

    Args:
        project: the project's configuration.
        name: the instance's.
        given: its configuration as the client wants it.
        current: what it has.

    Raises:
        Forbidden: a key is new, or has another value.
    """
    if not is_restricted(project) or _value(project, "containers.lowlevel") == "allow":
        return
    for key, value in given.items():
        short = key.removeprefix(VOLATILE_PREFIX)
        if short == key or value == current.get(key) or any(fnmatchcase(short, safe) for safe in _SAFE_VOLATILE):
            continue
        verb = "Changing" if key in current else "Setting"
        raise Forbidden(f'{verb} "{key}" on container "{name}" is forbidden', hint="its project is restricted")


# Devices


def _simple(what: str) -> Callable[[str, Config, Mapping[str, str]], str]:
    def complaint(restriction: str, _project: Config, _device: Mapping[str, str]) -> str:
        return "" if restriction == "allow" else f"{what} devices are forbidden"

    return complaint


def _nic(restriction: str, project: Config, device: Mapping[str, str]) -> str:
    if restriction == "block":
        return "Network devices are forbidden"
    if restriction == "managed" and not device.get("network"):
        return "Only managed network devices are allowed"
    name = device.get("network") or device.get("parent", "")
    if name and not network_allowed(project, name, managed=bool(device.get("network"))):
        return "Network not allowed in project"
    routes = [route for key in ("ipv4.routes", "ipv6.routes") for route in _items(device.get(key, ""))]
    return next((f"Route {route} is not allowed in project" for route in routes if not _may_have(project, route)), "")


def _disk(restriction: str, project: Config, device: Mapping[str, str]) -> str:
    source = device.get("source", "")
    if is_root_disk(device):
        return ""
    if restriction == "block":
        return "Disk devices are forbidden"
    if device.get("pool"):
        return ""
    if restriction == "managed":
        return "Attaching disks not backed by a pool is forbidden"
    is_allowed = not os.path.isabs(source) or not disk_paths(project) or disk_root(project, source)
    return "" if is_allowed else f'Disk source path "{source}" not allowed'


DEVICE_RULES: Mapping[str, tuple[str, Callable[[str, Config, Mapping[str, str]], str]]] = {
    "disk": ("devices.disk", _disk),
    "gpu": ("devices.gpu", _simple("GPU")),
    "infiniband": ("devices.infiniband", _simple("Infiniband")),
    "nic": ("devices.nic", _nic),
    "pci": ("devices.pci", _simple("PCI")),
    "proxy": ("devices.proxy", _simple("Proxy")),
    "unix-block": ("devices.unix-block", _simple("Unix block")),
    "unix-char": ("devices.unix-char", _simple("Unix character")),
    "unix-hotplug": ("devices.unix-hotplug", _simple("Unix hotplug")),
    "usb": ("devices.usb", _simple("USB")),
}
"""By type of device: the restriction, and what returns a complaint, "" for none, of its value, project and device."""


def _check_devices(project: Config, entity: Entity, whose: str) -> Iterator[str]:
    """Yield what is wrong with the devices of an instance or a profile."""
    for name, device in entity.devices.items():
        if (rule := DEVICE_RULES.get(device.get("type", ""))) and (
            complaint := rule[1](_value(project, rule[0]), project, device)
        ):
            yield f'Invalid device "{name}" on {whose}: {complaint}'


def disk_paths(project: Config) -> list[str]:
    """Return the directories that disks' sources have to be in; none: anywhere."""
    paths = _listed(project, "devices.disk.paths") if is_restricted(project) else []
    return [os.path.normpath(path) for path in paths]


def disk_root(project: Config, source: str) -> str:
    """Return the directory among `disk_paths` that a path is in, by its words; "" for none."""
    wanted = os.path.normpath(source)
    roots = disk_paths(project) if os.path.isabs(wanted) else ()
    return next((root for root in roots if os.path.commonpath((root, wanted)) == root), "")


# Networks


def network_allowed(project: Config, name: str, *, managed: bool) -> bool:
    """Return whether a project may see and use a network, or an interface of the host that is none."""
    if not is_restricted(project):
        return True
    nics = _value(project, "devices.nic")
    if nics == "block" or (nics == "managed" and not managed):
        return False
    allowed = _listed(project, "networks.access")
    return not allowed or name in allowed


def check_network(project: Config, config: Config) -> None:
    """Check what a network of a project's own is configured to; raises Forbidden."""
    if not is_restricted(project):
        return
    if config.get("raw.dnsmasq"):
        raise Forbidden("raw.dnsmasq is forbidden in a restricted project: it runs what it likes as root")
    uplinks = _listed(project, "networks.uplinks")
    for name in (name for key in _HOLDING for name in _items(config.get(key, ""))):
        if name not in uplinks:
            raise Forbidden(f'Uplink "{name}" is not allowed in project', hint="see restricted.networks.uplinks")
    for address in (address for key in _DRAWING for address in _items(config.get(key, ""))):
        refuse_address(project, address)


_HOLDING = ("bridge.external_interfaces", "lan.interface")
"""Keys of networks that name interfaces of the host."""

_DRAWING = ("ipv4.nat.address", "ipv6.nat.address", "ipv4.routes", "ipv6.routes")
"""Keys of networks that name addresses of the host, or such as it is to send here."""


def refuse_address(project: Config, address: str) -> None:
    """Check that a project may have an address of the host, or a subnet, forwarded to it; raises Forbidden."""
    if is_restricted(project) and not _may_have(project, address):
        raise Forbidden(f"Address {address} is not allowed in project", hint="see restricted.networks.subnets")


def _may_have(project: Config, address: str) -> bool:
    """Return whether an address or a subnet is among those that a restricted project may draw to itself."""
    wanted = ipaddress.ip_network(address, strict=False)
    subnets = [ipaddress.ip_network(item.partition(":")[2]) for item in _listed(project, "networks.subnets")]
    return any(wanted.version == subnet.version and wanted.subnet_of(subnet) for subnet in subnets)  # type: ignore[arg-type]


# The whole


def check(held: Holdings) -> None:
    """Check that nothing in a project is what its restrictions forbid.

    Raises:
        Forbidden: something is; it is named.
    """
    if not is_restricted(held.config):
        return
    for entity in entities(held):
        whose = f'{entity.kind} "{entity.name}" of project "{held.project}"'
        for find in (_check_keys, _check_devices):
            for complaint in find(held.config, entity, whose):
                raise Forbidden(complaint)
    for network in held.networks:
        try:
            check_network(held.config, network.config)
        except Forbidden as error:
            raise Forbidden(f'Network "{network.name}": {error.message}', hint=error.hint) from error


def refuse(project: Config, restriction: str, complaint: str) -> None:
    """Raise Forbidden when a project blocks something as a whole: "snapshots", "backups"."""
    if is_restricted(project) and _value(project, restriction) != "allow":
        raise Forbidden(complaint)
