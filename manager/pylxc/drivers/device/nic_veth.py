"""NICs that are one end of a veth pair: bridged (the other end in a bridge) and p2p (just there)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pylxc.drivers.device import nic
from pylxc.drivers.device.driver import Context, Nic, RunConfig
from pylxc.drivers.device.registry import nictype
from pylxc.errors import BadRequest
from pylxc.kernel.netlink import Netlink, random_veth


class VethDriver:
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
        host_name = device.get("host_name") or random_veth()
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

    def attach(self, nic_: Nic, pid: int, netlink: Netlink) -> None:
        """See `DeviceDriver`.

        One message makes the pair, puts one end into the bridge and the other one into the namespace under its name.
        """
        attributes: dict[str, Any] = {"state": "up"}
        peer: dict[str, Any] = {"ifname": nic_.name, "net_ns_pid": pid, "address": nic_.hwaddr}
        mtu = nic_.mtu
        if nic_.nictype == "bridged":
            bridge = nic.parent(nic_.parent, netlink)
            if bridge.kind not in ("bridge", "openvswitch"):
                raise BadRequest(f"Parent interface {nic_.parent!r} is no bridge", hint="use nictype=macvlan")
            attributes["master"] = bridge.index
            mtu = mtu or bridge.mtu
        if mtu:
            attributes["mtu"] = peer["mtu"] = mtu
        try:
            netlink.add(nic_.host_name, "veth", peer=peer, **attributes)
            try:
                netlink.set_up_inside(pid, nic_.name)
            except OSError:
                netlink.delete(nic_.host_name)
                raise
        except FileExistsError as error:
            raise BadRequest(f"An interface named {nic_.host_name!r} or {nic_.name!r} exists already") from error
        except OSError as error:
            raise nic.failure(nic_.device, error) from error

    def detach(self, context: Context, netlink: Netlink) -> None:
        """See `DeviceDriver`."""
        host_name = context.volatile("host_name")
        if not host_name:
            return
        if context.device.get("host_name"):
            netlink.delete(host_name)  # the next start wants the same name
        else:
            netlink.delete_soon(host_name)


def _static(device: Mapping[str, str], family: str) -> str:
    address = device.get(f"{family}.address", "")
    return "" if address == "none" else address
