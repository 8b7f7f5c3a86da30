"""NICs that are an interface of the host, or a VLAN of it: the container has it while it runs, then the host again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.kernel import namespaces
from pylxc.kernel.netlink import Link, Netlink
from pylxc.revert import Reverter


class PhysicalDriver(DeviceDriver):
    """See `DeviceDriver`.

    When the last process of a network namespace ends, the kernel puts what was in it somewhere, or deletes it. So the
    namespace is held by a file until the interface is back, whoever dies meanwhile.
    """

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        nic.require_parent(name, device)
        nic.check_vlan(device)

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        kept = nic.kept_of_vlan(context, host)
        link = host.netlink.find(_former_name(context)) or nic.parent(context.device["parent"], host.netlink)
        prefix = f"volatile.{context.name}.last_state"
        kept |= {f"{prefix}.hwaddr": link.hwaddr, f"{prefix}.mtu": str(link.mtu)}
        made = nic.of(context)
        return RunConfig(nics=(replace(made, hwaddr=made.hwaddr or link.hwaddr),), volatile=kept)

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`."""
        (made,) = run.nics
        with Reverter() as revert:
            link = nic.lower(context, host, revert)
            wanted = {"address": made.hwaddr} if made.hwaddr != link.hwaddr else {}
            try:
                _hold(context, host)
                revert.add(_let_go, context, host)
                revert.add(self._fetch, context, host)
                host.netlink.set(link.index, state="down")
                mtu = made.mtu or link.mtu
                host.netlink.set(link.index, net_ns_pid=context.pid, ifname=made.name, mtu=mtu, **wanted)
                host.netlink.set_up_inside(context.pid, made.name)
            except OSError as error:
                raise nic.failure(context.name, error) from error
            revert.success()

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        try:
            self._fetch(context, host)
        except OSError as error:
            raise nic.failure(context.name, error) from error
        _let_go(context, host)
        nic.drop_vlan(context, host)

    def _fetch(self, context: Context, host: HostTools) -> None:
        """Bring the interface back from the container; one that is not there is where it belongs, or unplugged."""
        path = _held(context, host)
        if not namespaces.is_namespace(path):
            return
        with Netlink.of(path) as inside:
            link = _find(context, inside)
            if link is None:
                return
            inside.set(link.index, state="down")
            former = {
                "ifname": _former_name(context),
                "address": context.volatile("last_state.hwaddr") or link.hwaddr,
                "mtu": int(context.volatile("last_state.mtu") or link.mtu),
            }
            with open("/proc/thread-self/ns/net", "rb") as home:
                inside.set(link.index, net_ns_fd=home.fileno(), **former)


def _find(context: Context, inside: Netlink) -> Link | None:
    """Return the interface in a container, whatever its root has made of it."""
    links = [link for link in inside.links() if not link.loopback]
    made = nic.of(context)
    names = {link.name: link for link in links}
    hwaddrs = {link.hwaddr: link for link in links}
    return names.get(made.name) or hwaddrs.get(made.hwaddr or context.volatile("last_state.hwaddr"))


def _former_name(context: Context) -> str:
    return nic.vlan_name(context.device) or context.device["parent"]


def _held(context: Context, host: HostTools) -> str:
    return f"{host.run_dir}/{context.instance}.{context.name}"


def _hold(context: Context, host: HostTools) -> None:
    os.makedirs(host.run_dir, mode=0o700, exist_ok=True)
    namespaces.hold(f"/proc/{context.pid}/ns/net", _held(context, host))


def _let_go(context: Context, host: HostTools) -> None:
    namespaces.let_go(_held(context, host))
