"""systemd-networkd: the files that make it run a bridge in the place of an interface. See: systemd.network(5)."""

from __future__ import annotations

import glob
import os
import re

from pylxc.drivers.network import host_clients

VOLATILE, PERSISTENT = "/run/systemd/network", "/etc/systemd/network"
RELOAD = ("networkctl", "reload")

_LINKS = "/run/systemd/netif/links"
_LEASES = "/run/systemd/netif/leases"
# What hangs on the interface below goes on doing so; the bridge gets all the rest.
_OF_PARENT = re.compile(r"^\s*(VLAN|MACVLAN|MACVTAP|IPVLAN|IPVTAP|LLDP|EmitLLDP)\s*=", re.MULTILINE)


def network_file(index: int) -> str:
    """Return the file by which a running networkd configures an interface, empty when it does not."""
    if not host_clients.in_this_namespace("systemd-network"):
        return ""
    facts = _assignments(f"{_LINKS}/{index}")
    return "" if facts.get("ADMIN_STATE") == "unmanaged" else facts.get("NETWORK_FILE", "")


def identity(index: int) -> str:
    """Return the IAID by which the DHCP server knows an interface, in decimals, empty when it does not.

    networkd makes it of the interface's name: without it the bridge would be another client, and get another address.
    """
    client = _assignments(f"{_LEASES}/{index}").get("CLIENTID", "")
    return str(int(client[2:10], 16)) if re.fullmatch(r"ff[0-9a-f]{8,}", client) else ""


def files(file: str, bridge: str, parent: str, hwaddr: str, iaid: str, *, persist: bool) -> dict[str, str]:
    """Return the files to write, as texts by path.

    Args:
        file: that configures the parent now, with its drop-ins.
        bridge: the bridge.
        parent: the interface that goes into it.
        hwaddr: of both.
        iaid: from `identity`.
        persist: whether they are there after a reboot too.
    """
    text = "\n".join(_read(path) for path in (file, *sorted(glob.glob(f"{_dropins(file)}/*.conf"))))
    kept = {"VLAN": [], "rest": []}  # type: dict[str, list[str]]
    section = ""
    for line in text.splitlines():
        if line.strip().startswith("["):
            section = line.strip()
        if section == "[Match]":
            continue
        kept["VLAN" if section == "[Network]" and _OF_PARENT.match(line) else "rest"].append(line)
    directory = PERSISTENT if persist else VOLATILE
    head = f"# Made by pylxc: {bridge} is on {parent}. `pylxc network delete {bridge}` takes it away again.\n"
    mac = f"[Link]\nMACAddress={hwaddr}\n"
    same = f"[DHCPv4]\nIAID={iaid}\n[DHCPv6]\nIAID={iaid}\n" if iaid else ""
    below = f"[Match]\nName={parent}\n\n[Network]\nBridge={bridge}\nLinkLocalAddressing=no\n"
    found = {
        f"{directory}/05-pylxc-{bridge}.network": f"{head}[Match]\nName={bridge}\n\n"
        + "\n".join(kept["rest"]).strip()
        + f"\n\n{mac}{same}",
        f"{directory}/05-pylxc-{bridge}-port.network": head + below + "".join(f"{line}\n" for line in kept["VLAN"]),
    }
    if persist:
        found[f"{directory}/05-pylxc-{bridge}.netdev"] = (
            f"{head}[NetDev]\nName={bridge}\nKind=bridge\nMACAddress={hwaddr}\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n"
        )
    return found


def _dropins(file: str) -> str:
    """Return the directory of a file's drop-ins: those in /etc count wherever the file is."""
    beside = f"{file}.d"
    return beside if os.path.isdir(beside) else f"{PERSISTENT}/{os.path.basename(file)}.d"


def _assignments(path: str) -> dict[str, str]:
    try:
        lines = _read(path).splitlines()
    except OSError:
        return {}
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
