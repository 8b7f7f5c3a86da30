"""Who configures an interface of the host, and what has to be told when a bridge takes the interface's place."""

from __future__ import annotations

from dataclasses import dataclass

from pylxc.drivers.network import host_clients, host_ifupdown, host_netplan, host_networkd
from pylxc.drivers.network.host_clients import Client
from pylxc.drivers.network.lan_link import Facts
from pylxc.drivers.network.lan_state import State
from pylxc.errors import BadRequest, PylxcError
from pylxc.kernel import command

Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to tell the host's configuration.

    Attributes:
        texts: files to write, by path.
        reload: commands that make a running daemon of the host read them.
        clients: DHCP clients to be ended on the interface and started on the bridge.
    """

    texts: dict[str, str]
    reload: Commands
    clients: tuple[Client, ...]


def plan(bridge: str, parent: Facts, state: State, *, persist: bool, check: bool) -> Plan:
    """Find out what a move of an interface's addresses to a bridge needs; change nothing.

    Args:
        bridge: the bridge's name.
        parent: the interface.
        state: what it has.
        persist: write it into the host's own configuration.
        check: refuse what would cut the host off later.

    Raises:
        BadRequest: NetworkManager is in charge; nothing is and `persist` wants something; nobody would renew a lease.
    """
    _refuse_network_manager(bridge, parent.name)
    clients = tuple(host_clients.find(parent.name))
    file = host_networkd.network_file(parent.index)
    leased = next((a for a in state.readable() if a.family == "ipv4" and a.seconds is not None), None)
    if check and leased and not clients and not file:
        raise BadRequest(
            f"Address {leased.address} of {parent.name} is leased for {leased.seconds} s by a program that pylxc "
            "does not know, which would not renew it on a bridge",
            hint="known are dhclient, dhcpcd, udhcpc and systemd-networkd; --yes does it all the same",
        )
    texts, reload = _files(bridge, parent, file, persist=persist)
    return Plan(texts=texts, reload=reload, clients=clients)


def _files(bridge: str, parent: Facts, file: str, *, persist: bool) -> tuple[dict[str, str], Commands]:
    hwaddr, iaid = parent.hwaddr.hex(":"), host_networkd.identity(parent.index)
    if persist and host_netplan.defining(parent.name):
        return host_netplan.files(bridge, parent.name, hwaddr, iaid), host_netplan.RELOAD if file else ()
    if file:
        made = host_networkd.files(file, bridge, parent.name, hwaddr, iaid, persist=persist)
        return made, (host_networkd.RELOAD,)
    if not persist:
        return {}, ()
    if host_ifupdown.defining(parent.name):
        return host_ifupdown.files(bridge, parent.name, hwaddr), ()
    raise BadRequest(
        f"Nothing on this host configures {parent.name} at boot: netplan, systemd-networkd and ifupdown do not know it",
        hint="without --persist pylxc makes the bridge again when it starts",
    )


def _refuse_network_manager(bridge: str, parent: str) -> None:
    if not host_clients.in_this_namespace("NetworkManager"):
        return
    try:
        shown = command.run(["nmcli", "-t", "-f", "GENERAL.STATE", "device", "show", parent], check=False, timeout=10)
    except PylxcError:
        return
    if shown.returncode or b"unmanaged" in shown.stdout:
        return
    raise BadRequest(
        f"NetworkManager is in charge of {parent} and would take it back: let it make the bridge",
        hint=f"nmcli connection add type bridge ifname {bridge} con-name {bridge} bridge.stp no bridge.mac-address "
        f"$(cat /sys/class/net/{parent}/address) && nmcli connection add type ethernet ifname {parent} master {bridge} "
        f"&& nmcli connection up {bridge}; then launch with -n {bridge}",
    )
