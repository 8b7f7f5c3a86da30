"""NICs whose other end is a port of a bridge: a managed network, or a bridge that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pylxc.config.device import NIC_BRIDGED
from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, HostTools, RunConfig
from pylxc.drivers.device.nic_veth import VethDriver, delete_routes
from pylxc.errors import BadRequest, NotSupported
from pylxc.kernel import sysctl
from pylxc.kernel.netlink import Link
from pylxc.revert import Reverter

_FILTERS = frozenset({"security.mac_filtering", "security.ipv4_filtering", "security.ipv6_filtering"})


class BridgedDriver(VethDriver):
    """See `DeviceDriver`."""

    live = nic.LIMITS | nic.ROUTES | _FILTERS | {"ipv4.address", "ipv6.address"}

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        if device.get("network"):
            for key in ("nictype", "parent", "mtu"):
                if device.get(key):
                    raise BadRequest(f'Cannot use "{key}" property in conjunction with "network" property')
        elif not device.get("parent"):
            raise BadRequest(f"Device {name!r} needs a network, or a nictype and a parent")
        vlans = tagged_vlans(device)
        if device.get("vlan", "") in [str(vlan) for vlan in vlans]:
            raise BadRequest(f"Tagged VLAN ID {device['vlan']!r} cannot be the same as untagged VLAN ID")
        for family in ("ipv4", "ipv6"):
            if NIC_BRIDGED.is_true(device, f"security.{family}_filtering"):
                if device.get("vlan") or vlans:
                    raise BadRequest("IP filtering cannot be used with VLAN filtering")
                if not device.get("network") and not device.get(f"{family}.address"):
                    raise BadRequest(
                        f"security.{family}_filtering on a bridge that is not managed needs {family}.address"
                    )
            elif not device.get("network") and device.get(f"{family}.address"):
                raise BadRequest(
                    f"Cannot use {family}.address on a bridge that is not managed",
                    hint=f"nobody hands it out there; it is of use with security.{family}_filtering=true",
                )
            elif device.get(f"{family}.address") == "none":
                raise BadRequest(f"Cannot have {family}.address as none unless using security.{family}_filtering")

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        bridge = nic.parent(_bridge_name(context), host.netlink)
        if bridge.kind not in ("bridge", "openvswitch"):
            raise BadRequest(f"Parent interface {bridge.name!r} is no bridge", hint="use nictype=macvlan")
        run = super().start(context, host)
        return replace(run, nics=tuple(replace(n, master=bridge.index, mtu=n.mtu or bridge.mtu) for n in run.nics))

    def is_delayed(self, context: Context) -> bool:
        """See `VethDriver`."""
        is_isolated = NIC_BRIDGED.is_true(context.device, "security.port_isolation")
        return is_isolated or _vlans(context.device) or super().is_delayed(context)

    def connect(self, context: Context, end: Link, host: HostTools, revert: Reverter) -> None:
        """See `VethDriver`."""
        device = context.device
        # As a port it needs no address of its own.
        sysctl.write(f"net/ipv6/conf/{end.name}/disable_ipv6", "1", optional=True)
        if NIC_BRIDGED.is_true(device, "security.port_isolation"):
            host.netlink.set_port(end.index, isolated=1)
        if _vlans(device):
            self._set_vlans(context, end, host)
        super().connect(context, end, host, revert)

    def _set_vlans(self, context: Context, end: Link, host: HostTools) -> None:
        bridge = host.netlink.get(_bridge_name(context))
        if bridge.kind != "bridge":
            raise NotSupported("VLANs on bridges of Open vSwitch are not supported")
        is_managed = context.network is not None
        filters = bool(host.netlink.bridge_data(bridge.name).get("br_vlan_filtering"))
        if not filters and not is_managed:
            raise BadRequest(
                f"VLAN filtering is not enabled on bridge {bridge.name!r}",
                hint=f"ip link set {bridge.name} type bridge vlan_filtering 1",
            )
        try:
            if not filters:
                host.netlink.set(bridge.index, kind="bridge", br_vlan_filtering=1)
            vlan = context.device.get("vlan", "")
            untagged = 0 if vlan == "none" else int(vlan or 1)
            host.netlink.set_port_vlans(end.index, untagged, tagged_vlans(context.device))
        except OSError as error:
            raise nic.failure(context.name, error, needs="CONFIG_BRIDGE_VLAN_FILTERING") from error

    def route_target(self, context: Context, end: Link, host: HostTools) -> int:
        """See `VethDriver`: the bridge."""
        del end
        return host.netlink.get(_bridge_name(context)).index

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        routes = nic.routes(context.device)
        bridge = host.netlink.find(_bridge_name(context)) if routes else None
        if bridge is not None:
            delete_routes(bridge.index, routes, host)
        super().detach(context, host)


def tagged_vlans(device: Mapping[str, str]) -> list[int]:
    """Return the VLANs whose tags a NIC sees.

    Raises:
        BadRequest: `vlan.tagged` is no list of numbers and ranges.
    """
    found: list[int] = []
    for entry in nic.listed(device, "vlan.tagged"):
        first, _, last = entry.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _vlans(device: Mapping[str, str]) -> bool:
    return bool(device.get("vlan") or device.get("vlan.tagged"))


def _bridge_name(context: Context) -> str:
    return context.device.get("network") or context.device["parent"]
