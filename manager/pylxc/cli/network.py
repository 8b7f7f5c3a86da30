"""`pylxc network`."""

from __future__ import annotations

from pylxc.cli.edit import assignments, stdin_yaml
from pylxc.cli.entity import Entity, group
from pylxc.cli.grammar import FORMAT, Args, Command, Option
from pylxc.cli.info import addresses, counters
from pylxc.cli.network_forward import FORWARD
from pylxc.cli.output import plain, show, sort_rows, yes
from pylxc.cli.profile import INSTANCE, PROFILE
from pylxc.errors import BadRequest, Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

NETWORK = Entity("network", "/1.0/networks", ("config", "description"), keys="network-bridge")


def _row(one: dict[str, Any]) -> list[str]:
    config = one.get("config") or {}
    return [
        one["name"],
        one["type"],
        yes(one["managed"]),
        config.get("ipv4.address", ""),
        config.get("ipv6.address", ""),
        one.get("description", ""),
        str(len(one.get("used_by") or [])),
        str(one.get("status", "")).upper(),
    ]


def _create(session: Session, args: Args) -> None:
    name = session.required(args.words[0], "network")
    fields = stdin_yaml("network")
    fields["config"] = {**(fields.get("config") or {}), **_lan_keys(args), **assignments(args.words[1:])}
    if args.type:
        fields["type"] = args.type
    if args.lan and not args.yes and not session.quiet:
        print(
            f"{name} takes over {args.lan}; without an answer of the gateway, or `pylxc network confirm {name}`, "
            "all is undone",
            flush=True,
        )
    session.client.networks.create(name, **{key: value for key, value in fields.items() if key != "name"})
    if not session.quiet:
        print(f"Network {name} created")


def _lan_keys(args: Args) -> dict[str, str]:
    """Return the configuration that `--lan` and the flags beside it stand for."""
    if not args.lan:
        if args.persist or args.yes:
            raise BadRequest("--persist and --yes go with --lan", hint="pylxc network create br0 --lan eth0")
        return {}
    keys = {"lan.interface": args.lan}
    if args.persist:
        keys["lan.persist"] = "true"
    if args.yes:
        keys["lan.check"] = "false"
    return keys


def _confirm(session: Session, args: Args) -> None:
    session.client.networks.confirm(session.required(args.words[0], "network"))


def _leases(session: Session, args: Args) -> None:
    leases = session.client.networks.leases(session.required(args.words[0], "network"))
    rows = [[one["hostname"], one["hwaddr"], one["address"], one["type"].upper()] for one in leases]
    show(args.format, ("HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"), sort_rows(rows), leases)


def _info(session: Session, args: Args) -> None:
    name = session.required(args.words[0], "network")
    state = session.client.networks.state(name)
    lines = [
        f"Name: {name}",
        f"MAC address: {state['hwaddr']}",
        f"MTU: {state['mtu']}",
        f"State: {state['state']}",
        f"Type: {state['type']}",
    ]
    if state.get("addresses"):
        lines += ["", "IP addresses:", *addresses(state, "  ", "\t")]
    if state.get("counters"):
        lines += ["", "Network usage:", *counters(state, "  ")]
    if bridge := state.get("bridge"):
        lines += [
            "",
            "Bridge:",
            f"  ID: {bridge['id']}",
            f"  STP: {str(bridge['stp']).lower()}",
            f"  Forward delay: {bridge['forward_delay']}",
            f"  Default VLAN ID: {bridge['vlan_default']}",
            f"  VLAN filtering: {str(bridge['vlan_filtering']).lower()}",
            f"  Upper devices: {', '.join(bridge.get('upper_devices') or [])}",
        ]
    print(plain("\n".join(lines)))


def _nic(session: Session, words: list[str]) -> tuple[str, dict[str, str]]:
    """Return the name and the options of the device for `<network> <owner> [<device>] [<interface>]`."""
    network = session.required(words[0], "network")
    found = session.client.networks.get(network)
    if found["managed"]:
        device = {"type": "nic", "network": network}
    else:
        device = {"type": "nic", "nictype": "bridged" if found["type"] == "bridge" else "macvlan", "parent": network}
    name = words[2] if len(words) > 2 else network
    device["name"] = words[3] if len(words) > 3 else name
    if len(words) <= 2:
        del device["name"]
    return name, device


def _attach(entity: Entity, session: Session, args: Args) -> None:
    name, device = _nic(session, args.words)

    def change(fields: dict[str, Any]) -> None:
        if name in fields["devices"]:
            raise Conflict(f"Device {name!r} already exists")
        fields["devices"][name] = device

    entity.change(session, args.words[1], change)


def _detach(entity: Entity, session: Session, args: Args) -> None:
    network = session.required(args.words[0], "network")

    def change(fields: dict[str, Any]) -> None:
        devices = fields["devices"]
        name = args.words[2] if len(args.words) > 2 else ""
        if not name:
            found = [key for key, one in devices.items() if network in {one.get("network"), one.get("parent")}]
            if len(found) > 1:
                raise BadRequest("More than one device matches, specify the device name")
            name = found[0] if found else ""
        if name not in devices:
            raise NotFound("No device found for this network")
        del devices[name]

    entity.change(session, args.words[1], change)


def _for_instance(session: Session, args: Args) -> None:
    _attach(INSTANCE, session, args)


def _for_profile(session: Session, args: Args) -> None:
    _attach(PROFILE, session, args)


def _from_instance(session: Session, args: Args) -> None:
    _detach(INSTANCE, session, args)


def _from_profile(session: Session, args: Args) -> None:
    _detach(PROFILE, session, args)


_ONE = "[<remote>:]<network>"
_LAN_DETAILS = """
With --lan the addresses, routes and DNS of an interface move to the bridge, and instances on it are machines of the
host's own network. Unless the gateway answers over the bridge, or `pylxc network confirm` comes from another terminal,
within 30 seconds all is as it was before. `pylxc network delete` puts everything back.
"""

COMMANDS = (
    group(
        "network",
        "Manage networks",
        (
            *NETWORK.commands(),
            NETWORK.list_command(
                "List available networks",
                ("NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"),
                _row,
                lambda one: one["type"] not in {"loopback", "unknown"},
            ),
            Command(
                "create",
                "Create new networks",
                f"{_ONE} [key=value...]",
                _create,
                words=(1, None),
                complete=("", "network-bridge key="),
                options=(
                    Option(
                        "--lan", help="Put this interface of the host, with its addresses, on the bridge", kind="value"
                    ),
                    Option("--persist", help="With --lan: write it into the host's own network configuration"),
                    Option("-t", "--type", help="Network type", kind="value"),
                    Option("-y", "--yes", help="With --lan: keep it whether the gateway answers or not"),
                ),
                details=_LAN_DETAILS,
                examples=(
                    ("network create br1 ipv4.address=10.1.2.1/24", "Create a bridge with that address."),
                    ("network create br0 --lan eth0", "Create a bridge on the host's own network."),
                ),
            ),
            Command(
                "confirm",
                "Keep a bridge on the host's own network whose gateway does not answer",
                _ONE,
                _confirm,
                words=(1, 1),
                complete=("network",),
            ),
            Command("info", "Get runtime information on networks", _ONE, _info, words=(1, 1), complete=("network",)),
            Command(
                "list-leases",
                "List DHCP leases",
                _ONE,
                _leases,
                words=(1, 1),
                options=(FORMAT,),
                complete=("network",),
            ),
            Command(
                "attach",
                "Attach new network interfaces to instances",
                f"{_ONE} <instance> [<device name>] [<interface name>]",
                _for_instance,
                words=(2, 4),
                complete=("network", "instance", ""),
            ),
            Command(
                "attach-profile",
                "Attach network interfaces to profiles",
                f"{_ONE} <profile> [<device name>] [<interface name>]",
                _for_profile,
                words=(2, 4),
                complete=("network", "profile", ""),
            ),
            Command(
                "detach",
                "Detach network interfaces from instances",
                f"{_ONE} <instance> [<device name>]",
                _from_instance,
                words=(2, 3),
                complete=("network", "instance", ""),
            ),
            FORWARD,
            Command(
                "detach-profile",
                "Detach network interfaces from profiles",
                f"{_ONE} <profile> [<device name>]",
                _from_profile,
                words=(2, 3),
                complete=("network", "profile", ""),
            ),
        ),
    ),
)
