"""Devices of type none: they mask one of the same name that a profile gives."""

from __future__ import annotations

from collections.abc import Mapping

from pylxc.drivers.device.driver import Context, Nic, RunConfig
from pylxc.kernel.netlink import Netlink


class NoneDriver:
    """See `DeviceDriver`."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`: there is nothing to check."""

    def start(self, context: Context) -> RunConfig:
        """See `DeviceDriver`."""
        del context
        return RunConfig()

    def attach(self, nic_: Nic, pid: int, netlink: Netlink) -> None:
        """See `DeviceDriver`: it is no NIC."""

    def detach(self, context: Context, netlink: Netlink) -> None:
        """See `DeviceDriver`: it is no NIC."""
