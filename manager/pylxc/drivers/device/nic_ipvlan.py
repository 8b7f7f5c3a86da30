"""NICs that share the MAC address of an interface of the host and have IP addresses of their own on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pylxc.config.device import NIC_IPVLAN
from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.errors import BadRequest
from pylxc.kernel.netlink import Link
from pylxc.revert import Reverter

_MODES = {"l2": 0, "l3s": 2}
_L2_PREFIXES = {"ipv4": 24, "ipv6": 64}
_FAMILIES = (("ipv4", 32, "0.0.0.0/0"), ("ipv6", 128, "::/0"))


class IpvlanDriver(DeviceDriver):
    """See `DeviceDriver`. In mode l3s the host answers for the addresses on the parent and hands packets in."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        nic.require_parent(name, device)
        nic.check_vlan(device)
        for family, _, _ in _FAMILIES:
            gateway = device.get(f"{family}.gateway", "")
            if _is_l3(device) and gateway not in ("", "auto", "none"):
                raise BadRequest(f"With mode=l3s {family}.gateway is auto or none")
            if not _is_l3(device) and gateway == "auto":
                raise BadRequest(f"With mode=l2 {family}.gateway is an address")
            if _is_l3(device) and "/" in device.get(f"{family}.address", ""):
                raise BadRequest(f"With mode=l3s {family}.address has no prefix length")

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        kept = nic.kept_of_vlan(context, host)
        if _is_l3(context.device):
            nic.require_forwarding(context, host)
        return RunConfig(nics=(nic.of(context),), volatile=kept)

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`."""
        (made,) = run.nics
        with Reverter() as revert:
            lower = nic.lower(context, host, revert)
            mode = _MODES[NIC_IPVLAN.value(context.device, "mode")]
            mtu = made.mtu or lower.mtu
            try:
                host.netlink.add(
                    made.name, "ipvlan", link=lower.index, ipvlan_mode=mode, net_ns_pid=context.pid, mtu=mtu
                )
                revert.add(nic.delete_inside, context, host.netlink)
                revert.add(self._forget, context, lower, host)
                if _is_l3(context.device):
                    nic.forward_vlan(context, lower)
                    self._answer_for(context, lower, host)
                host.netlink.set_up_inside(context.pid, made.name)
                self._configure_inside(context, made.name, host)
            except OSError as error:
                raise nic.failure(context.name, error, needs="CONFIG_IPVLAN") from error
            revert.success()

    def _answer_for(self, context: Context, lower: Link, host: HostTools) -> None:
        loopback = host.netlink.get("lo").index
        for address, bits in _addresses(context.device):
            host.netlink.add_proxy(lower.index, address)
            for table in _tables(context.device, address):
                host.netlink.add_route(loopback, f"{address}/{bits}", **table)

    def _configure_inside(self, context: Context, name: str, host: HostTools) -> None:
        with host.netlink.inside(context.pid) as inside:
            index = inside.get(name).index
            for address, bits in _addresses(context.device):
                inside.add_address(index, address, bits)
            for family, _, everything in _FAMILIES:
                if not nic.listed(context.device, f"{family}.address"):
                    continue
                gateway = context.device.get(f"{family}.gateway", "")
                if _is_l3(context.device) and gateway != "none":
                    inside.add_route(index, everything)
                elif gateway not in ("", "none"):
                    inside.add_route(index, everything, gateway=gateway, flags=["onlink"])

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        if context.pid:
            nic.delete_inside(context, host.netlink)
        lower = host.netlink.find(nic.vlan_name(context.device) or context.device["parent"])
        if lower is not None:
            self._forget(context, lower, host)
        nic.drop_vlan(context, host)

    def _forget(self, context: Context, lower: Link, host: HostTools) -> None:
        if _is_l3(context.device):
            loopback = host.netlink.get("lo").index
            for address, bits in _addresses(context.device):
                host.netlink.delete_proxy(lower.index, address)
                for table in _tables(context.device, address):
                    host.netlink.delete_route(loopback, f"{address}/{bits}", **table)


def _is_l3(device: Mapping[str, str]) -> bool:
    return NIC_IPVLAN.value(device, "mode") == "l3s"


def _tables(device: Mapping[str, str], address: str) -> list[dict[str, Any]]:
    """Return the routing tables that lead to an address, as `Netlink.add_route` takes them: the main one first."""
    more = device.get("ipv6.host_table" if ":" in address else "ipv4.host_table")
    return [{}, {"table": int(more)}] if more else [{}]


def _addresses(device: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return addresses with the lengths of their prefixes: in mode l2 they are of a subnet."""
    found = []
    for family, bits, _ in _FAMILIES:
        for entry in nic.listed(device, f"{family}.address"):
            address, _, prefix = entry.partition("/")
            found.append((address, bits if _is_l3(device) else int(prefix or _L2_PREFIXES[family])))
    return found
