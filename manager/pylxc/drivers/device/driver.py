"""What a device driver does. `validate` and `start` turn configuration into plain data; the others act."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pylxc.drivers.redirect import Redirect
from pylxc.kernel.netlink import Netlink
from pylxc.kernel.nftables import Chain
from pylxc.runtime.spec import DeviceNode, Mount, ProxySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """An interface that a container gets.

    Attributes:
        name: inside.
        hwaddr: inside; empty where it has that of its parent.
        mtu: 0 for the parent's.
        host_name: of the host's end, empty where there is none.
        master: index of the bridge that the host's end is a port of, 0 for none.
    """

    name: str
    hwaddr: str
    mtu: int = 0
    host_name: str = ""
    master: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a device adds to a container.

    Attributes:
        mounts: mounts, in order.
        nodes: device nodes.
        nics: interfaces.
        volatile: configuration keys to be kept while it runs.
        source: from `DeviceDriver.presence`.
    """

    mounts: tuple[Mount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    nics: tuple[Nic, ...] = ()
    volatile: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A custom volume: its directory on the host; with `mapped` its ids are those that its instances see."""

    path: str
    mapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A device of an instance.

    Attributes:
        name: the device's.
        device: its configuration.
        config: the instance's expanded configuration, with its volatile keys.
        instance: the instance's key on disk.
        pid: of PID 1 when the container runs or is being started, else 0.
        network: configuration of the managed network that it, or what it leads to, is on; None for none.
        addresses: those that the network has given it for good, by family, where none is configured.
        volume: the custom volume that it mounts, None where there is none.
        within: the directory that a disk's source must be in, links and all; "" for anywhere.
        siblings: all devices of the instance, itself among them.
    """

    name: str
    device: Mapping[str, str]
    config: Mapping[str, str]
    instance: str = ""
    pid: int = 0
    network: Mapping[str, str] | None = None
    addresses: Mapping[str, str] = field(default_factory=dict)
    volume: Volume | None = None
    within: str = ""
    siblings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def address(self, family: str) -> str:
        """Return the address that a NIC always gets, empty for any; `family` is ipv4 or ipv6."""
        address = self.device.get(f"{family}.address", "")
        return "" if address == "none" else address or self.addresses.get(family, "")

    def volatile(self, key: str) -> str:
        """Return what is kept of the device under volatile.DEVICE.`key`, empty for nothing."""
        return self.config.get(f"volatile.{self.name}.{key}", "")


class Firewall(Protocol):
    """The packet filter: `drivers.network.firewall.Firewall`."""

    def put(self, kind: str, name: str, chains: Iterable[Chain]) -> None:
        """Make an owner's rules exactly these; raises Unavailable."""

    def remove(self, kind: str, name: str) -> None:
        """Remove an owner's rules, if there are any; raises Unavailable."""


class Proxies(Protocol):
    """The processes of proxy devices: `runtime.proxies.Proxies`."""

    def start(self, key: str, device: str, spec: ProxySpec, pid: int) -> None:
        """Start one for a container's PID 1, whose file system is whole; raises BadRequest when it cannot listen."""

    def stop(self, key: str, device: str) -> None:
        """End one, if it is there."""


class Redirects(Protocol):
    """Redirected ports of the host: `services.networks.redirects.Redirects`."""

    def put(self, kind: str, name: str, label: str, redirects: Sequence[Redirect], local: str) -> None:
        """Make an owner's redirects these; raises Conflict and Unavailable."""

    def remove(self, kind: str, name: str) -> None:
        """Remove an owner's redirects, if there are any; raises Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTools:
    """What drivers reach the host with.

    Attributes:
        netlink: the host's interfaces.
        firewall: the packet filter; an owner of rules for a NIC is `nic`, `INSTANCE.DEVICE`.
        proxies: processes that lead from one side to the other.
        redirects: ports of the host that lead to instances; an owner for a device is `proxy`, `INSTANCE.DEVICE`.
        run_dir: directory for what has to be found again after a crash, gone after the host has started anew.
        has_others: whether another device of any container hangs on the same parent and VLAN as this one.
    """

    netlink: Netlink
    firewall: Firewall
    proxies: Proxies
    redirects: Redirects
    run_dir: str
    has_others: Callable[[Context], bool]


class DeviceDriver:
    """A type of device (for NICs: a nictype): checks its configuration, and makes and removes what it is on the host.

    A driver overrides what its devices need. Errors are `PylxcError`s. The order of calls for a container that starts
    is `start`, `attach` (its network namespace is there, its file system is not), `enter` (all of it is there, its init
    does not run); for one that runs they follow each other, with the mounts and nodes of `start` made before `enter`.
    `detach` comes at the end of the container, or after mounts and nodes were taken from it.
    """

    live: frozenset[str] = frozenset()
    """Keys that `update` changes in place; a change of any other takes the device away and gives it anew."""

    def follows(self, device: Mapping[str, str], siblings: Mapping[str, Mapping[str, str]]) -> object:
        """Return what a device takes from the instance's other ones; when that changes, it is given anew."""
        del device, siblings
        return None

    def optional_source(self, device: Mapping[str, str]) -> str:
        """Return the path on the host without which the device does while it is not there; empty for none."""
        del device
        return ""

    def presence(self, device: Mapping[str, str]) -> str:
        """Return what tells what is at `optional_source` now from anything else; empty while nothing is that fits.

        When that changes while a container runs, the device is given anew.
        """
        del device
        return ""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """Check what the table of keys cannot: how values fit together.

        Raises:
            BadRequest: they do not.
            NotSupported: the dialect knows it, and this server does not do it.
        """

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """Return what the device adds; look at the host, but touch nothing.

        Volatile keys of an earlier call are in the context when the device is given back after a failed change.

        Raises:
            BadRequest: what it needs of the host is missing.
        """
        del context, host
        return RunConfig()

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """Make what the device needs on the host, such as the interface in the network namespace of `context.pid`.

        Args:
            context: the device.
            run: what `start` returned.
            host: means.

        Raises:
            BadRequest: what it needs of the host is missing.
            Internal: the kernel refuses; nothing is left.
        """

    def enter(self, context: Context, host: HostTools) -> None:
        """Do what needs the container's file system; arguments and errors as `attach` has them."""

    def resume(self, context: Context, host: HostTools) -> None:
        """Take up again what the daemon itself does for a device of a container that has run on without it."""

    def update(self, before: Context, after: Context, host: HostTools) -> None:
        """Change keys of `live` while the container runs; errors as `attach` has them, with all as it was."""

    def adjusted(self, before: Mapping[str, str], after: Mapping[str, str]) -> Mount | None:
        """Return the mount whose options a change of `live` keys concerns, as it shall be."""
        del before, after
        return None

    def detach(self, context: Context, host: HostTools) -> None:
        """Remove from the host what `attach` and `enter` made, as far as it is there; also after a crash.

        Args:
            context: the device with the volatile keys of its run; `pid` is 0 when the container has ended.
            host: means.
        """
