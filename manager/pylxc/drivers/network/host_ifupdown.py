"""ifupdown: /etc/network/interfaces with a bridge in the place of an interface. See: interfaces(5)."""

from __future__ import annotations

import glob
import os
import re

from pylxc.drivers.network.host_clients import names_interface

_MAIN = "/etc/network/interfaces"


def defining(parent: str, root: str = "") -> list[str]:
    """Return the files of ifupdown that configure an interface."""
    return [path for path in _files(f"{root}{_MAIN}", root) if _stanza(parent).search(_read(path))]


def files(bridge: str, parent: str, hwaddr: str, root: str = "") -> dict[str, str]:
    """Return the files to write, as texts by path; arguments as `host_networkd.files` has them."""
    pattern = names_interface(parent)
    found: dict[str, str] = {}
    for path in defining(parent, root):
        lines = [
            line if line.lstrip().startswith("#") else pattern.sub(bridge, line) for line in _read(path).splitlines()
        ]
        # A bridge is not plugged in: what waits for that would wait for ever.
        found[path] = "\n".join(re.sub(rf"^\s*allow-hotplug(?=.*\b{bridge}\b)", "auto", line) for line in lines) + "\n"
    first = next(iter(found), None)
    if first is not None:
        made = _stanza(bridge).sub(lambda match: f"{match.group(0)}\n{_bridge(parent, hwaddr)}", found[first], count=1)
        found[first] = (
            f"# Changed by pylxc: {bridge} is on {parent}. `pylxc network delete {bridge}` puts this file back.\n"
            f"{made}\niface {parent} inet manual\n"
        )
    return found


def _bridge(parent: str, hwaddr: str) -> str:
    """Return the lines that make the bridge; they need no package but iproute2."""
    return (
        "    pre-up ip link add name $IFACE type bridge forward_delay 0 2>/dev/null || true\n"
        f"    pre-up ip link set dev $IFACE address {hwaddr}\n"
        f"    pre-up ip link set dev {parent} up master $IFACE\n"
        "    post-down ip link delete dev $IFACE"
    )


def _stanza(interface: str) -> re.Pattern[str]:
    return re.compile(rf"^[ \t]*iface[ \t]+{re.escape(interface)}[ \t]+inet6?[ \t].*$", re.MULTILINE)


def _files(path: str, root: str) -> list[str]:
    """Return a file that exists and those that it includes."""
    if not os.path.isfile(path):
        return []
    found = [path]
    for word, argument in re.findall(r"^\s*(source|source-directory)\s+(\S+)", _read(path), re.MULTILINE):
        place = argument if os.path.isabs(argument) else f"{os.path.dirname(_MAIN)}/{argument}"
        for other in sorted(glob.glob(f"{root}{place}/*" if word == "source-directory" else f"{root}{place}")):
            if word == "source" or re.fullmatch(r"[A-Za-z0-9_-]+", os.path.basename(other)):
                found += _files(other, root)
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
