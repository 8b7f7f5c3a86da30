"""netplan: its YAML with a bridge in the place of an interface. See: netplan(5)."""

from __future__ import annotations

import glob
import os
from typing import Any

import yaml

from pylxc.drivers.network import host_networkd
from pylxc.errors import BadRequest

_PLACES = ("/lib/netplan", "/etc/netplan", "/run/netplan")  # the later one wins, file name by file name
_KINDS = ("ethernets", "bonds", "vlans")
# What describes the hardware stays with the interface; what is the host's on the network goes to the bridge.
_OF_PARENT = {
    "match", "set-name", "wakeonlan", "emit-lldp", "optional", "interfaces", "parameters", "id", "link", "renderer",
    "receive-checksum-offload", "transmit-checksum-offload", "tcp-segmentation-offload", "virtual-function-count",
    "tcp6-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload", "large-receive-offload",
    "embedded-switch-mode", "delay-virtual-functions-rebind", "infiniband-mode", "openvswitch",
}  # fmt: skip
_CLOUD_INIT = "/etc/cloud/cloud.cfg.d/99-pylxc-network.cfg"

RELOAD = (("netplan", "generate"), host_networkd.RELOAD)


def defining(parent: str, root: str = "") -> list[str]:
    """Return netplan's files that say something of an interface."""
    return [path for path, data in _documents(root).items() if _find(data, parent)]


def files(bridge: str, parent: str, hwaddr: str, iaid: str, root: str = "") -> dict[str, str]:
    """Return the files to write, as texts by path; arguments as `host_networkd.files` has them.

    Raises:
        BadRequest: netplan leaves the interface to NetworkManager.
    """
    found: dict[str, str] = {}
    moved: dict[str, Any] = {}
    documents = _documents(root)
    for path in defining(parent, root):
        data = documents[path]
        network = data["network"]
        if network.get("renderer") == "NetworkManager":
            raise BadRequest(
                f"netplan leaves {parent} to NetworkManager: make the bridge there, and use it with -n NAME"
            )
        kind, key = _find(data, parent) or ("", "")
        settings = network[kind][key] or {}
        moved |= {name: value for name, value in settings.items() if name not in _OF_PARENT}
        network[kind][key] = {name: value for name, value in settings.items() if name in _OF_PARENT}
        network[kind][key] |= {"dhcp4": False, "dhcp6": False, "accept-ra": False, "link-local": []}
        interfaces = {"interfaces": [key], "macaddress": hwaddr, "parameters": {"stp": False, "forward-delay": 0}}
        network.setdefault("bridges", {})[bridge] = {**moved, **interfaces}
        head = f"# Changed by pylxc: {bridge} is on {parent}. `pylxc network delete {bridge}` puts this file back.\n"
        found[path] = head + yaml.safe_dump(data, sort_keys=False)
        if "cloud-init" in _read(path) and os.path.isdir(os.path.dirname(root + _CLOUD_INIT)):
            found[root + _CLOUD_INIT] = f"{head.replace('Changed', 'Made')}network: {{config: disabled}}\n"
    if iaid:
        dropin = f"{root}{host_networkd.PERSISTENT}/10-netplan-{bridge}.network.d/pylxc.conf"
        found[dropin] = f"[DHCPv4]\nIAID={iaid}\n[DHCPv6]\nIAID={iaid}\n"
    return found


def _documents(root: str) -> dict[str, dict[str, Any]]:
    by_name = {os.path.basename(p): p for place in _PLACES for p in sorted(glob.glob(f"{root}{place}/*.yaml"))}
    found = {}
    for _, path in sorted(by_name.items()):
        try:
            data = yaml.safe_load(_read(path))
        except yaml.YAMLError as error:
            raise BadRequest(f"Cannot read {path}: it is not YAML") from error
        if isinstance(data, dict) and isinstance(data.get("network"), dict):
            found[path] = data
    return found


def _find(data: dict[str, Any], parent: str) -> tuple[str, str] | None:
    """Return (section, key) of an interface, also of one that is matched by hardware and named by `set-name`."""
    for kind in _KINDS:
        section = data["network"].get(kind)
        for key, settings in section.items() if isinstance(section, dict) else ():
            if key == parent or (isinstance(settings, dict) and settings.get("set-name") == parent):
                return kind, str(key)
    return None


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
