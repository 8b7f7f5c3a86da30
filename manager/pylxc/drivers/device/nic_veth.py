"""NICs that are one end of a veth pair; what the other end on the host is, the drivers on top of this say."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from pylxc.drivers.device import nic, nic_filter
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, Nic, RunConfig
from pylxc.kernel import shaping
from pylxc.kernel.netlink import Link, random_veth
from pylxc.kernel.nftables import Chain
from pylxc.revert import Reverter


class VethDriver(DeviceDriver):
    """See `DeviceDriver`."""

    live = nic.LIMITS

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        del host
        host_name = context.device.get("host_name") or context.volatile("host_name") or random_veth()
        made = nic.of(context, host_name=host_name)
        return RunConfig(nics=(made,), volatile={f"volatile.{context.name}.host_name": host_name})

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`."""
        (made,) = run.nics
        try:
            with Reverter() as revert:
                is_delayed = self.is_delayed(context)
                _make(made, context.pid, host, up=not is_delayed)
                revert.add(host.netlink.delete, made.host_name)
                end = host.netlink.get(made.host_name)
                if self.is_held(context):
                    revert.add(self.let_go, context, host)
                    self.hold(context, end, host)
                self.connect(context, end, host, revert)
                if is_delayed:
                    host.netlink.set(end.index, state="up")
                host.netlink.set_up_inside(context.pid, made.name)
                self.configure_inside(context, made, host)
                revert.success()
        except OSError as error:
            raise nic.failure(context.name, error) from error

    def is_delayed(self, context: Context) -> bool:
        """Return whether the host's end must not be up before `hold` and `connect`."""
        return self.is_held(context)

    def connect(self, context: Context, end: Link, host: HostTools, revert: Reverter) -> None:
        """Make the host's end, which may be down still, part of what it belongs to.

        Args:
            context: the NIC.
            end: the host's end, which is deleted when this fails.
            host: means.
            revert: takes how to undo what does not go with that.

        Raises:
            PylxcError: it cannot be.
            OSError: likewise.
        """
        if routes := nic.routes(context.device):
            target = self.route_target(context, end, host)
            add_routes(context, target, routes, host)
            revert.add(delete_routes, target, routes, host)

    def configure_inside(self, context: Context, made: Nic, host: HostTools) -> None:
        """Give the container's end what its init is not to be bothered with; raises PylxcError, OSError."""

    def hold(self, context: Context, end: Link, host: HostTools) -> None:
        """Limit what goes through; raises PylxcError."""
        if any(context.device.get(key) for key in nic.LIMITS):
            limit(context, end, host)
        self._put_rules(context, end, host)

    def resume(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`: the firewall puts rules again that others flush, if it knows them."""
        if chains := self.chains(context, context.volatile("host_name")):
            host.firewall.put("nic", owner(context), chains)

    def update(self, before: Context, after: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        try:
            with Reverter() as revert:
                end = host.netlink.get(before.volatile("host_name"))
                if any(before.device.get(key) != after.device.get(key) for key in nic.LIMITS):
                    revert.add(limit, before, end, host)
                    limit(after, end, host)
                revert.add(self._put_rules, before, end, host)
                self._put_rules(after, end, host)
                target = self.route_target(after, end, host)
                old, new = nic.routes(before.device), nic.routes(after.device)
                lost, gained = [r for r in old if r not in new], [r for r in new if r not in old]
                revert.add(add_routes, before, target, lost, host)
                delete_routes(target, lost, host)
                add_routes(after, target, gained, host)
                revert.success()
        except OSError as error:
            raise nic.failure(after.name, error) from error

    def route_target(self, context: Context, end: Link, host: HostTools) -> int:
        """Return the index of the interface that `ipv4.routes` and `ipv6.routes` lead to."""
        del context, host
        return end.index

    def _put_rules(self, context: Context, end: Link, host: HostTools) -> None:
        host.firewall.put("nic", owner(context), self.chains(context, end.name))

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        host_name = context.volatile("host_name")
        if host_name:
            if context.device.get("host_name"):
                host.netlink.delete(host_name)  # the next start wants the same name
            elif context.pid:
                host.netlink.delete_from_view(host_name)
            else:
                host.netlink.delete_soon(host_name)
        self.let_go(context, host)

    def let_go(self, context: Context, host: HostTools) -> None:
        """Undo `hold`; the host's end may be gone; raises PylxcError, OSError."""
        if self.chains(context, "-"):
            host.firewall.remove("nic", owner(context))
        if nic.rate(context.device, "egress"):
            shaping.remove_detour(host.netlink, _detour(context))

    def is_held(self, context: Context) -> bool:
        """Return whether a NIC has limits, or rules in the firewall."""
        return any(context.device.get(key) for key in nic.LIMITS) or bool(self.chains(context, "-"))

    def chains(self, context: Context, host_name: str) -> list[Chain]:
        """Return a NIC's rules in the firewall; `host_name` is that of its end on the host."""
        return nic_filter.chains(context, host_name, nic.of(context).hwaddr)


def owner(context: Context) -> str:
    """Return the name of a NIC as an owner of rules in the firewall."""
    return f"{context.instance}.{context.name}"


def limit(context: Context, end: Link, host: HostTools) -> None:
    """Limit what the host sends to the container and takes from it, or no longer.

    Raises:
        PylxcError: the kernel cannot.
    """
    try:
        shaping.limit(host.netlink, end.index, nic.rate(context.device, "ingress"), end.name)
        shaping.limit_incoming(host.netlink, end.index, _detour(context), nic.rate(context.device, "egress"))
    except OSError as error:
        needs = "CONFIG_NET_SCH_HTB, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED, CONFIG_IFB"
        raise nic.failure(context.name, error, needs=needs) from error


def _detour(context: Context) -> str:
    return f"ifb{zlib.crc32(context.volatile('host_name').encode()):08x}"


def add_routes(context: Context, index: int, subnets: Iterable[str], host: HostTools) -> None:
    """Route subnets to an interface, all or none.

    Raises:
        PylxcError: one is routed already, or the kernel refuses.
    """
    with Reverter() as revert:
        for subnet in subnets:
            try:
                host.netlink.add_route(index, subnet, exclusive=True)
            except OSError as error:
                raise nic.failure(context.name, error) from error
            revert.add(host.netlink.delete_route, index, subnet)
        revert.success()


def delete_routes(index: int, subnets: Iterable[str], host: HostTools) -> None:
    """Undo `add_routes`; raises OSError."""
    for subnet in subnets:
        host.netlink.delete_route(index, subnet)


def _make(made: Nic, pid: int, host: HostTools, *, up: bool) -> None:
    """Make the pair with one message, one end in the container's namespace under its name there."""
    both = {"mtu": made.mtu} if made.mtu else {}
    peer = {"ifname": made.name, "net_ns_pid": pid, "address": made.hwaddr, **both}
    attributes: dict[str, Any] = {**both, **({"master": made.master} if made.master else {})}
    if up:
        attributes["state"] = "up"
    try:
        host.netlink.add(made.host_name, "veth", peer=peer, **attributes)
    except FileExistsError as error:
        error.filename = f"an interface named {made.host_name!r} or {made.name!r}"
        raise
