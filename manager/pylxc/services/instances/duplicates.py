"""NICs on one network that want the same address: only one of them can have it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from sqlalchemy.orm import Session

from pylxc.drivers.device.registry import nictype
from pylxc.errors import BadRequest
from pylxc.services.instances.expand import Record, load_all

_Device = Mapping[str, str]


def refuse(session: Session, found: Record) -> None:
    """Check that no bridged NIC has an address for which an instance's NICs are configured.

    Args:
        session: a transaction, in which other instances are as they are.
        found: the instance as it shall be.

    Raises:
        BadRequest: another NIC has it, of this instance or of another one.
    """
    wanted = [(name, device) for name, device in _bridged(found) if any(device.get(key) for key in _KEYS)]
    if not wanted:
        return
    others = [other for other in load_all(session, None) if other.id != found.id]
    taken = [(other, name, device) for other in (*others, found) for name, device in _bridged(other)]
    for name, device in wanted:
        for other, other_name, other_device in taken:
            if (other is found and name == other_name) or _place(device) != _place(other_device):
                continue
            for key in _KEYS:
                address = _address(found, name, device, key)
                if device.get(key) and address and address == _address(other, other_name, other_device, key):
                    kind = "MAC" if key == "hwaddr" else "IP"
                    raise BadRequest(
                        f'{kind} address "{address}" already defined on another NIC',
                        hint=f"device {other_name!r} of instance {other.name!r}",
                    )


_KEYS = ("hwaddr", "ipv4.address", "ipv6.address")


def _bridged(found: Record) -> Iterator[tuple[str, _Device]]:
    for name, device in found.expanded_devices.items():
        if device.get("type") == "nic" and nictype(device) == "bridged":
            yield name, device


def _place(device: _Device) -> tuple[str, str]:
    return device.get("network") or device.get("parent", ""), device.get("vlan", "")


def _address(found: Record, name: str, device: _Device, key: str) -> str:
    if key == "hwaddr":
        return (device.get("hwaddr") or found.expanded_config.get(f"volatile.{name}.hwaddr", "")).lower()
    address = device.get(key, "")
    return "" if address in ("", "none") else str(ipaddress.ip_address(address))
