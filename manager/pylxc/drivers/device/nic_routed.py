"""NICs whose addresses the host routes to them and answers for on a parent interface, without a bridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pylxc.config.device import NIC_ROUTED
from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, HostTools, Nic, RunConfig
from pylxc.drivers.device.nic_veth import VethDriver
from pylxc.errors import BadRequest
from pylxc.kernel import neighbour, sysctl
from pylxc.kernel import nftables as nft
from pylxc.kernel.netlink import Link
from pylxc.kernel.nftables import Chain, Hook
from pylxc.revert import Reverter

_FAMILIES = ("ipv4", "ipv6")
_PROBE_SECONDS = 0.1
_RPF_PRIORITY = -300


class RoutedDriver(VethDriver):
    """See `DeviceDriver`."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        for family in _FAMILIES:
            addresses = nic.listed(device, f"{family}.address")
            if len(set(addresses)) < len(addresses):
                raise BadRequest(f"Duplicate address in {family}.address")
            if device.get(f"{family}.routes") and not addresses:
                raise BadRequest(f"{family}.routes requires {family}.address to be set")
        if device.get("vlan") and not device.get("parent"):
            raise BadRequest("The vlan setting can only be used when combined with a parent interface")
        nic.check_vlan(device)

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        run = super().start(context, host)
        if context.device.get("parent"):
            kept = nic.kept_of_vlan(context, host)
            nic.require_forwarding(context, host)
            self._probe(context, host)
            run = RunConfig(nics=run.nics, volatile={**run.volatile, **kept})
        return run

    def _probe(self, context: Context, host: HostTools) -> None:
        link = host.netlink.find(nic.vlan_name(context.device) or context.device["parent"])
        if link is None or not link.up or context.volatile("host_name"):  # given back: nobody else can have them
            return
        asked = [a for f in _FAMILIES if NIC_ROUTED.is_true(context.device, f"{f}.neighbor_probe")
                 for a in nic.listed(context.device, f"{f}.address")]  # fmt: skip
        if asked and (taken := neighbour.answering(link.index, asked, _PROBE_SECONDS)):
            raise BadRequest(f"Address {min(taken)} is in use on the network of {link.name!r}")

    def connect(self, context: Context, end: Link, host: HostTools, revert: Reverter) -> None:
        """See `VethDriver`."""
        device = context.device
        sysctl.write(f"net/ipv6/conf/{end.name}/accept_ra", "0", optional=True)
        sysctl.write(f"net/ipv4/conf/{end.name}/rp_filter", "1", optional=True)
        lower = None
        if device.get("parent"):
            lower = nic.lower(context, host, revert)
            nic.forward_vlan(context, lower)
        host.netlink.set(end.index, state="up")
        for family in _FAMILIES:
            addresses = nic.listed(device, f"{family}.address")
            if addresses:
                host.netlink.add_address(end.index, _host_address(device, family), _bits(family))
                sysctl.write(f"net/{family}/conf/{end.name}/forwarding", "1")
            for address in addresses:
                self._lead(context, end.index, f"{address}/{_bits(family)}", host, family)
                if lower is not None:
                    host.netlink.add_proxy(lower.index, address)
                    revert.add(host.netlink.delete_proxy, lower.index, address)
            for subnet in nic.listed(device, f"{family}.routes"):
                self._lead(context, end.index, subnet, host, family, gateway=addresses[0])

    def _lead(
        self, context: Context, index: int, subnet: str, host: HostTools, family: str, *, gateway: str = ""
    ) -> None:
        """Route a subnet to the NIC, in the main table and in one more that is configured."""
        via: dict[str, Any] = {"gateway": gateway} if gateway else {}
        host.netlink.add_route(index, subnet, exclusive=True, **via)
        if table := context.device.get(f"{family}.host_table"):
            host.netlink.add_route(index, subnet, table=int(table), **via)

    def chains(self, context: Context, host_name: str) -> list[Chain]:
        """See `VethDriver`: packets whose source is not routed back to the NIC are dropped."""
        fib = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
        rule = (nft.arriving(host_name), nft.match(fib, False), nft.DROP)
        hook = Hook(type="filter", name="prerouting", priority=_RPF_PRIORITY)
        return [*super().chains(context, host_name), Chain(name="from", hook=hook, rules=(rule,))]

    def configure_inside(self, context: Context, made: Nic, host: HostTools) -> None:
        """See `VethDriver`."""
        device = context.device
        with host.netlink.inside(context.pid) as inside:
            index = inside.get(made.name).index
            for family in _FAMILIES:
                addresses = nic.listed(device, f"{family}.address")
                for address in addresses:
                    inside.add_address(index, address, _bits(family))
                if addresses and NIC_ROUTED.value(device, f"{family}.gateway") != "none":
                    gateway = _host_address(device, family)
                    # It is on no subnet of the interface.
                    inside.add_route(index, _everything(family), gateway=gateway, flags=["onlink"])

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        name = nic.vlan_name(context.device) or context.device.get("parent", "")
        if name and (lower := host.netlink.find(name)):
            for address in (a for family in _FAMILIES for a in nic.listed(context.device, f"{family}.address")):
                host.netlink.delete_proxy(lower.index, address)
        super().detach(context, host)
        nic.drop_vlan(context, host)


def _host_address(device: Mapping[str, str], family: str) -> str:
    return NIC_ROUTED.value(device, f"{family}.host_address")


def _bits(family: str) -> int:
    return 32 if family == "ipv4" else 128


def _everything(family: str) -> str:
    return "0.0.0.0/0" if family == "ipv4" else "::/0"
