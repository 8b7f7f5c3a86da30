"""NICs that are an address of their own on an interface of the host."""

from __future__ import annotations

from collections.abc import Mapping

from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, Nic, RunConfig
from pylxc.errors import BadRequest, NotSupported
from pylxc.kernel.netlink import Netlink


class MacvlanDriver:
    """See `DeviceDriver`. The interface is made inside; nothing of it is on the host."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        if device.get("network"):
            raise NotSupported("Networks of type macvlan are not supported", hint="use parent=INTERFACE")
        if not device.get("parent"):
            raise BadRequest(f"Device {name!r} needs a parent")

    def start(self, context: Context) -> RunConfig:
        """See `DeviceDriver`."""
        device = context.device
        found = Nic(
            device=context.name,
            nictype="macvlan",
            name=device.get("name") or context.volatile("name"),
            hwaddr=(device.get("hwaddr") or context.volatile("hwaddr")).lower(),
            mtu=nic.mtu(context),
            parent=device["parent"],
        )
        return RunConfig(nics=(found,))

    def attach(self, nic_: Nic, pid: int, netlink: Netlink) -> None:
        """See `DeviceDriver`."""
        lower = nic.parent(nic_.parent, netlink)
        try:
            netlink.add(
                nic_.name,
                "macvlan",
                link=lower.index,
                macvlan_mode="bridge",
                net_ns_pid=pid,
                address=nic_.hwaddr,
                mtu=nic_.mtu or lower.mtu,
            )
            netlink.set_up_inside(pid, nic_.name)
        except OSError as error:
            raise nic.failure(nic_.device, error) from error

    def detach(self, context: Context, netlink: Netlink) -> None:
        """See `DeviceDriver`: it went with its namespace."""
