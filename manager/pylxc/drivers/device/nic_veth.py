"""NICs that are one end of a veth pair: bridged (the other end in a bridge) and p2p (just there)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, Nic, RunConfig
from pylxc.drivers.device.registry import nictype
from pylxc.errors import BadRequest
from pylxc.kernel.netlink import random_veth


class VethDriver(DeviceDriver):
    """See `DeviceDriver`."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        if nictype(device) != "bridged":
            return
        if device.get("network"):
            for key in ("nictype", "parent", "mtu"):
                if device.get(key):
                    raise BadRequest(f'Cannot use "{key}" property in conjunction with "network" property')
        elif not device.get("parent"):
            raise BadRequest(f"Device {name!r} needs a network, or a nictype and a parent")

    def start(self, context: Context) -> RunConfig:
        """See `DeviceDriver`."""
        device = context.device
        host_name = device.get("host_name") or context.volatile("host_name") or random_veth()
        found = Nic(
            device=context.name,
            nictype=nictype(device),
            name=device.get("name") or context.volatile("name"),
            hwaddr=(device.get("hwaddr") or context.volatile("hwaddr")).lower(),
            mtu=nic.mtu(context),
            parent=device.get("network") or device.get("parent", ""),
            host_name=host_name,
            network=device.get("network", ""),
            ipv4=_static(device, "ipv4"),
            ipv6=_static(device, "ipv6"),
        )
        return RunConfig(nics=(found,), volatile={f"volatile.{context.name}.host_name": host_name})

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`.

        One message makes the pair, puts one end into the bridge and the other one into the namespace under its name.
        """
        (made,) = run.nics
        attributes: dict[str, Any] = {"state": "up"}
        peer: dict[str, Any] = {"ifname": made.name, "net_ns_pid": context.pid, "address": made.hwaddr}
        mtu = made.mtu
        if made.nictype == "bridged":
            bridge = nic.parent(made.parent, host.netlink)
            if bridge.kind not in ("bridge", "openvswitch"):
                raise BadRequest(f"Parent interface {made.parent!r} is no bridge", hint="use nictype=macvlan")
            attributes["master"] = bridge.index
            mtu = mtu or bridge.mtu
        if mtu:
            attributes["mtu"] = peer["mtu"] = mtu
        try:
            host.netlink.add(made.host_name, "veth", peer=peer, **attributes)
            try:
                host.netlink.set_up_inside(context.pid, made.name)
            except OSError:
                host.netlink.delete(made.host_name)
                raise
        except FileExistsError as error:
            raise BadRequest(f"An interface named {made.host_name!r} or {made.name!r} exists already") from error
        except OSError as error:
            raise nic.failure(made.device, error) from error

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        host_name = context.volatile("host_name")
        if not host_name:
            return
        if context.pid or context.device.get("host_name"):
            host.netlink.delete(host_name)  # somebody watches, or the next start wants the same name
        else:
            host.netlink.delete_soon(host_name)


def _static(device: Mapping[str, str], family: str) -> str:
    address = device.get(f"{family}.address", "")
    return "" if address == "none" else address
