"""What a device driver does. `validate` and `start` turn configuration into plain data; the others touch the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pylxc.kernel.netlink import Netlink
from pylxc.runtime.spec import DeviceNode, Mount


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """An interface that a container gets.

    Attributes:
        device: the device's name.
        nictype: whose driver attaches it.
        name: inside.
        hwaddr: inside.
        mtu: 0 for the parent's.
        parent: bridge or interface of the host, empty for none.
        host_name: of the host's end, empty where there is none.
        network: the managed network that it is on, empty for none.
        ipv4: address that DHCP always gives it, empty for any.
        ipv6: likewise.
    """

    device: str
    nictype: str
    name: str
    hwaddr: str
    mtu: int = 0
    parent: str = ""
    host_name: str = ""
    network: str = ""
    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a device adds to a container; `volatile` are configuration keys to be kept while it runs."""

    mounts: tuple[Mount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    nics: tuple[Nic, ...] = ()
    volatile: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A device of an instance.

    Attributes:
        name: the device's.
        device: its configuration.
        config: the instance's expanded configuration, with its volatile keys.
        instance: the instance's key on disk.
        pid: of PID 1 when the container runs or is being started, else 0.
        network: configuration of the managed network that it is on, None for none.
    """

    name: str
    device: Mapping[str, str]
    config: Mapping[str, str]
    instance: str = ""
    pid: int = 0
    network: Mapping[str, str] | None = None

    def volatile(self, key: str) -> str:
        """Return what is kept of the device under volatile.DEVICE.`key`, empty for nothing."""
        return self.config.get(f"volatile.{self.name}.{key}", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTools:
    """What drivers reach the host with."""

    netlink: Netlink


class DeviceDriver:
    """A type of device (for NICs: a nictype): checks its configuration, and makes and removes what it is on the host.

    A driver overrides what its devices need. Errors are `PylxcError`s. The order of calls for a container that starts
    is `start`, `attach` (its namespaces are there, its init does not run), `started`; for one that runs they follow
    each other, with the mounts and nodes of `start` made before `started`. `detach` comes at the end of
    the container, or after mounts and nodes were taken from it.
    """

    live: frozenset[str] = frozenset()
    """Keys that `update` changes in place; a change of any other takes the device away and gives it anew."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """Check what the table of keys cannot: how values fit together.

        Raises:
            BadRequest: they do not.
            NotSupported: the dialect knows it, and this server does not do it.
        """

    def start(self, context: Context) -> RunConfig:
        """Return what the device adds; touch nothing.

        Volatile keys of an earlier call are in the context when the device is given back after a failed change.

        Raises:
            BadRequest: what it needs of the host is missing.
        """
        del context
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

    def started(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """Do what needs the container's file system; arguments and errors as `attach` has them."""

    def update(self, before: Context, after: Context, host: HostTools) -> None:
        """Change keys of `live` while the container runs; errors as `attach` has them, with all as it was."""

    def detach(self, context: Context, host: HostTools) -> None:
        """Remove from the host what `attach` and `started` made, as far as it is there; also after a crash.

        Args:
            context: the device with the volatile keys of its run; `pid` is 0 when the container has ended.
            host: means.
        """
