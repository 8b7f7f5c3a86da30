"""What a device driver does. Drivers turn configuration into plain data; only `attach` and `detach` touch the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

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
    """What devices add to a container that starts; `volatile` are configuration keys to be kept while it runs."""

    mounts: tuple[Mount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    nics: tuple[Nic, ...] = ()
    volatile: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: RunConfig) -> RunConfig:
        """Return what both add."""
        return RunConfig(
            mounts=self.mounts + other.mounts,
            nodes=self.nodes + other.nodes,
            nics=self.nics + other.nics,
            volatile={**self.volatile, **other.volatile},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A device of an instance.

    Attributes:
        name: the device's.
        device: its configuration.
        config: the instance's expanded configuration, with its volatile keys.
        network: configuration of the managed network that it is on, None for none.
    """

    name: str
    device: Mapping[str, str]
    config: Mapping[str, str]
    network: Mapping[str, str] | None = None

    def volatile(self, key: str) -> str:
        """Return what is kept of the device under volatile.DEVICE.`key`, empty for nothing."""
        return self.config.get(f"volatile.{self.name}.{key}", "")


class DeviceDriver(Protocol):
    """A type of device (for NICs: a nictype). Errors are `PylxcError`s."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """Check what the table of keys cannot: how values fit together.

        Raises:
            BadRequest: they do not.
            NotSupported: the dialect knows it, and this server does not do it.
        """

    def start(self, context: Context) -> RunConfig:
        """Return what the device adds; touch nothing.

        Raises:
            BadRequest: what it needs of the host is missing.
        """

    def attach(self, nic: Nic, pid: int, netlink: Netlink) -> None:
        """Give the network namespace of process `pid` its interface; only for NICs.

        Raises:
            BadRequest: the parent is missing.
            Internal: the kernel refuses; nothing is left.
        """

    def detach(self, context: Context, netlink: Netlink) -> None:
        """Remove from the host what `attach` made, if it is still there; also after a crash. Only for NICs."""
