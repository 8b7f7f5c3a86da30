"""NICs that are an address of their own on an interface of the host, or on a VLAN of it."""

from __future__ import annotations

from collections.abc import Mapping

from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.revert import Reverter


class MacvlanDriver(DeviceDriver):
    """See `DeviceDriver`. The interface is made inside; of it nothing is on the host but the interface of the VLAN."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        nic.require_parent(name, device)
        nic.check_vlan(device)

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        return RunConfig(nics=(nic.of(context),), volatile=nic.kept_of_vlan(context, host))

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`."""
        (made,) = run.nics
        with Reverter() as revert:
            lower = nic.lower(context, host, revert)
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
                revert.add(nic.delete_inside, context, host.netlink)
                host.netlink.set_up_inside(context.pid, made.name)
            except OSError as error:
                raise nic.failure(context.name, error, needs="CONFIG_MACVLAN") from error
            revert.success()

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`: it goes with its namespace."""
        if context.pid:
            nic.delete_inside(context, host.netlink)
        nic.drop_vlan(context, host)
