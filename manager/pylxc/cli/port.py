"""`pylxc port`, and what `launch -P` does: ports of the host as proxy devices, in a few letters."""

from __future__ import annotations

from pylxc.cli.entity import group
from pylxc.cli.grammar import FORMAT, Args, Command
from pylxc.cli.output import show, sort_rows
from pylxc.cli.profile import INSTANCE
from pylxc.client.http import quote
from pylxc.errors import BadRequest, Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

FORM = "[<address>:]<host port>:<port>[/udp]"


class Port:
    """A port, or a range of ports, of the host that leads into an instance.

    Attributes:
        name: of the device that does it.
        device: its configuration; None when `text` names no port of the instance.
    """

    def __init__(self, text: str) -> None:
        """Read `[ADDRESS:]HOST_PORT[:PORT][/PROTOCOL]`.

        Raises:
            BadRequest: it is malformed.
        """
        rest, _, protocol = text.partition("/")
        address = ""
        if rest.startswith("["):
            address, _, rest = rest[1:].partition("]:")
        elif rest.count(":") > 1 or "." in rest.split(":")[0]:
            address, _, rest = rest.partition(":")
        host, colon, inside = rest.partition(":")
        if protocol not in ("", "tcp", "udp") or not _is_range(host) or (colon and not _is_range(inside)):
            raise BadRequest(f"Invalid port {text!r}", hint=f"{FORM}, such as 8080:80 or 127.0.0.1:8000-8010:9000-9010")
        protocol = protocol or "tcp"
        words = ["port", *([address] if address else []), host, *([protocol] if protocol == "udp" else [])]
        self.name = "-".join(words)
        shown = f"[{address}]" if ":" in address else address or "[::]"
        self.device = None
        if inside:
            self.device = {
                "type": "proxy",
                "listen": f"{protocol}:{shown}:{host}",
                "connect": f"{protocol}:127.0.0.1:{inside}",
            }


def _is_range(text: str) -> bool:
    first, dash, last = text.partition("-")
    return first.isdecimal() and (last.isdecimal() if dash else True)


def devices(texts: list[str]) -> dict[str, dict[str, str]]:
    """Return the devices of the ports that are spelt by `texts`, by name.

    Raises:
        BadRequest: one is malformed, names no port inside, or is there twice.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        port = Port(text)
        if port.device is None:
            raise BadRequest(f"Invalid port {text!r}: the instance's port is missing", hint=FORM)
        if port.name in found:
            raise BadRequest(f"Port {text!r} is given twice")
        found[port.name] = port.device
    return found


def _add(session: Session, args: Args) -> None:
    name = session.required(args.words[0])
    wanted = devices(args.words[1:])

    def change(fields: dict[str, Any]) -> None:
        for device in wanted:
            if device in fields["devices"]:
                raise Conflict(f"{name} has device {device!r} already")
        fields["devices"].update(wanted)

    INSTANCE.change(session, name, change)
    if not session.quiet:
        for device in wanted.values():
            print(f"{device['listen']} leads to {device['connect']} of {name}")


def _remove(session: Session, args: Args) -> None:
    name = session.required(args.words[0])

    def change(fields: dict[str, Any]) -> None:
        for text in args.words[1:]:
            port = Port(text)
            device = fields["devices"].get(port.name)
            if device is None or (port.device and device.get("connect") != port.device["connect"]):
                raise NotFound(f"{name} has no port {text}", hint=f"pylxc port list {name} shows those it has")
            del fields["devices"][port.name]

    INSTANCE.change(session, name, change)
    if not session.quiet:
        print(f"Removed from {name}: {', '.join(args.words[1:])}")


def _list(session: Session, args: Args) -> None:
    wanted = session.name(args.words[0]) if args.words else ""
    instances = (
        [session.client.instances.get(wanted, full=True)] if wanted else session.client.instances.list(full=True)
    )
    found = [entry for one in instances for entry in _proxies(one)]
    found += _forwards(session, instances)
    titles = ("INSTANCE", "LISTEN", "TARGET", "HOW", "STATE", "DEVICE")
    keys = [title.lower() for title in titles]
    show(args.format, titles, sort_rows([[entry[key] for key in keys] for entry in found]), found)


def _proxies(instance: dict[str, Any]) -> list[dict[str, str]]:
    runs = instance["status"] == "Running"
    return [
        {
            "instance": instance["name"],
            "listen": _side(device, "listen"),
            "target": _side(device, "connect"),
            "how": "NAT" if device.get("nat", "false") in ("true", "1", "yes", "on") else "PROXY",
            "state": "LISTENING" if runs else "STOPPED",
            "device": name,
        }
        for name, device in instance["expanded_devices"].items()
        if device["type"] == "proxy"
    ]


def _side(device: dict[str, str], key: str) -> str:
    """Return an address of a proxy device; one that leads out of the instance says on which side each end is."""
    if device.get("bind", "host") == "host":
        return device[key]
    return f"{device[key]} (inside)" if key == "listen" else f"{device[key]} (host)"


def _forwards(session: Session, instances: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the ports of network forwards that lead to one of the instances."""
    if not session.client.has_extension("network_forward"):
        return []
    owners = {
        address["address"]: one["name"]
        for one in instances
        for interface in ((one.get("state") or {}).get("network") or {}).values()
        for address in interface["addresses"]
    }
    owners |= {
        device[key]: one["name"]
        for one in instances
        for device in one["expanded_devices"].values()
        for key in ("ipv4.address", "ipv6.address")
        if device.get(key, "none") != "none"
    }
    found = []
    for network in session.client.networks.list():
        if network["managed"]:
            for forward in session.client.get(f"/1.0/networks/{quote(network['name'])}/forwards", recursion=1):
                found += _ports_of(forward, network["name"], owners)
    return found


def _ports_of(forward: dict[str, Any], network: str, owners: dict[str, str]) -> list[dict[str, str]]:
    listen = forward["listen_address"]
    ends = [
        (
            port["target_address"],
            f"{port['protocol']}:{listen}:{port['listen_port']}",
            f"{port['protocol']}:{port['target_address']}:{port['target_port'] or port['listen_port']}",
        )
        for port in forward["ports"]
    ]
    if default := forward["config"].get("target_address"):
        ends.append((default, f"{listen} (the rest)", default))
    return [
        {
            "instance": owners[address],
            "listen": source,
            "target": target,
            "how": f"FORWARD ({network})",
            "state": "LISTENING",
            "device": "",
        }
        for address, source, target in ends
        if address in owners
    ]


_ONE = "[<remote>:]<instance>"

COMMANDS = (
    group(
        "port",
        "Lead ports of the host into instances",
        (
            Command(
                "add",
                "Add ports of the host that lead into an instance",
                f"{_ONE} {FORM}...",
                _add,
                words=(2, None),
                examples=(
                    ("port add c01 8080:80", "Serve the instance's port 80 as port 8080 of every address of the host."),
                    ("port add c01 127.0.0.1:8000-8010:9000-9010", "Lead a range of ports, from the host itself only."),
                    ("port add c01 5353:53/udp", "Lead a UDP port."),
                ),
                complete=("instance", ""),
            ),
            Command(
                "list",
                "List what leads into instances: proxy devices, NAT and network forwards",
                "[[<remote>:]<instance>]",
                _list,
                words=(0, 1),
                aliases=("ls",),
                options=(FORMAT,),
                complete=("instance",),
            ),
            Command(
                "remove",
                "Remove ports that were added",
                f"{_ONE} [<address>:]<host port>[:<port>][/udp]...",
                _remove,
                words=(2, None),
                aliases=("rm",),
                complete=("instance", ""),
            ),
        ),
    ),
)
