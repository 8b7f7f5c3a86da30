"""NICs that are an interface of the host, or a VLAN of it: the container has it while it runs, then the host again."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.kernel import namespaces
from pylxc.kernel.netlink import Netlink
from pylxc.revert import Reverter

_INDICES = 1_000_000
"""How many indices there are to choose from, and the first of them: the kernel does not get that far by counting."""


class PhysicalDriver(DeviceDriver):
    """See `DeviceDriver`.

    When the last process of a network namespace ends, the kernel puts what was in it somewhere, or deletes it. So the
    namespace is held by a file until the interface is back, whoever dies meanwhile.

    The container's root may give it another name and address, and these to an interface of its own making. Its index is
    what cannot be changed, so that is what it is known by.
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
        kept |= {f"{prefix}.hwaddr": link.hwaddr, f"{prefix}.mtu": str(link.mtu), f"{prefix}.index": str(link.index)}
        made = nic.of(context)
        return RunConfig(nics=(replace(made, hwaddr=made.hwaddr or link.hwaddr),), volatile=kept)

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`."""
        (made,) = run.nics
        with Reverter() as revert:
            link = nic.lower(context, host, revert)
            wanted: dict[str, Any] = {"address": made.hwaddr} if made.hwaddr != link.hwaddr else {}
            try:
                _hold(context, host)
                revert.add(_let_go, context, host)
                revert.add(self._fetch, context, host)
                host.netlink.set(link.index, state="down")
                wanted |= {"ifname": made.name, "mtu": made.mtu or link.mtu, "new_ifindex": _index(context)}
                host.netlink.set(link.index, net_ns_pid=context.pid, **wanted)
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
            link = next((link for link in inside.links() if link.index == _index(context)), None)
            if link is None:
                return
            inside.set(link.index, state="down")
            former = {
                "ifname": _former_name(context),
                "address": context.volatile("last_state.hwaddr") or link.hwaddr,
                "mtu": int(context.volatile("last_state.mtu") or link.mtu),
            }
            index = int(context.volatile("last_state.index") or 0)
            if index and index not in (other.index for other in host.netlink.links()):
                former["new_ifindex"] = index
            with open("/proc/thread-self/ns/net", "rb") as home:
                inside.set(link.index, net_ns_fd=home.fileno(), **former)


def _index(context: Context) -> int:
    """Return the interface's index in the container."""
    return _INDICES + zlib.crc32(f"{context.instance}.{context.name}".encode()) % _INDICES


def _former_name(context: Context) -> str:
    return nic.vlan_name(context.device) or context.device["parent"]


def _held(context: Context, host: HostTools) -> str:
    return f"{host.run_dir}/{context.instance}.{context.name}"


def _hold(context: Context, host: HostTools) -> None:
    os.makedirs(host.run_dir, mode=0o700, exist_ok=True)
    namespaces.hold(f"/proc/{context.pid}/ns/net", _held(context, host))


def _let_go(context: Context, host: HostTools) -> None:
    namespaces.let_go(_held(context, host))
