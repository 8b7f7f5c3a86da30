"""NICs that are an address of their own on an interface of the host."""

from __future__ import annotations

from collections.abc import Mapping

from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, Nic, RunConfig
from pylxc.errors import BadRequest, NotSupported


class MacvlanDriver(DeviceDriver):
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

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`."""
        (made,) = run.nics
        lower = nic.parent(made.parent, host.netlink)
        try:
            host.netlink.add(
                made.name,
                "macvlan",
                link=lower.index,
                macvlan_mode="bridge",
                net_ns_pid=context.pid,
                address=made.hwaddr,
                mtu=made.mtu or lower.mtu,
            )
            host.netlink.set_up_inside(context.pid, made.name)
        except OSError as error:
            raise nic.failure(made.device, error) from error

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`: it goes with its namespace."""
        if context.pid:
            nic.delete_inside(context, host.netlink)
