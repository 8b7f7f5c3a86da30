"""`pylxc network forward`."""

from __future__ import annotations

import sys

from pylxc.cli.edit import assignments, edit, stdin_yaml
from pylxc.cli.entity import Entity, group
from pylxc.cli.grammar import FORMAT, Args, Command, Option
from pylxc.cli.output import show, sort_rows
from pylxc.client.http import quote
from pylxc.errors import BadRequest, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_FIELDS = ("config", "description", "ports")


def _forwards(session: Session, args: Args) -> Entity:
    """Return the forwards of the network that the first word names."""
    network = session.required(args.words[0], "network")
    return Entity("network forward", f"/1.0/networks/{quote(network)}/forwards", _FIELDS)


def _list(session: Session, args: Args) -> None:
    found = session.client.get(_forwards(session, args).path, recursion=1)
    rows = [
        [one["listen_address"], one["description"], one["config"].get("target_address", ""), str(len(one["ports"]))]
        for one in found
    ]
    show(args.format, ("LISTEN ADDRESS", "DESCRIPTION", "DEFAULT TARGET ADDRESS", "PORTS"), sort_rows(rows), found)


def _show(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    sys.stdout.write(yamltext.dump(session.client.get(_forwards(session, args).url(args.words[1]))))


def _create(session: Session, args: Args) -> None:
    fields = stdin_yaml("network forward")
    config = {**(fields.get("config") or {}), **assignments(args.words[2:])}
    body = {**fields, "config": config, "listen_address": args.words[1]}
    session.client.request("POST", _forwards(session, args).path, body)
    if not session.quiet:
        print(f"Network forward {args.words[1]} created")


def _get(session: Session, args: Args) -> None:
    found = session.client.get(_forwards(session, args).url(args.words[1]))
    print(found["config"].get(args.words[2], ""))


def _set(session: Session, args: Args) -> None:
    values = assignments(args.words[2:], legacy=True)
    _forwards(session, args).change(session, args.words[1], lambda fields: fields["config"].update(values))


def _unset(session: Session, args: Args) -> None:
    values = {args.words[2]: ""}
    _forwards(session, args).change(session, args.words[1], lambda fields: fields["config"].update(values))


def _edit(session: Session, args: Args) -> None:
    forwards = _forwards(session, args)
    url = forwards.url(args.words[1])
    reply = session.client.request("GET", url)
    edit(
        forwards.what,
        forwards.changeable(reply),
        lambda fields: session.client.request("PUT", url, fields, if_match=reply.etag),
    )


def _delete(session: Session, args: Args) -> None:
    session.client.request("DELETE", _forwards(session, args).url(args.words[1]))
    if not session.quiet:
        print(f"Network forward {args.words[1]} deleted")


def _add_port(session: Session, args: Args) -> None:
    _, address, protocol, listen, target, *target_port = args.words
    port = {"protocol": protocol, "listen_port": listen, "target_address": target}
    if target_port:
        port["target_port"] = target_port[0]
    _forwards(session, args).change(session, address, lambda fields: fields["ports"].append(port))


def _remove_port(session: Session, args: Args) -> None:
    _, address, *wanted = args.words

    def change(fields: dict[str, Any]) -> None:
        keys = ("protocol", "listen_port")[: len(wanted)]
        matching = [port for port in fields["ports"] if [port[key] for key in keys] == wanted]
        if not matching:
            raise NotFound("No matching port(s) found")
        if len(matching) > 1 and not args.force:
            raise BadRequest("Multiple ports match. Use --force to remove them all")
        fields["ports"] = [port for port in fields["ports"] if port not in matching]

    _forwards(session, args).change(session, address, change)


_NETWORK = "[<remote>:]<network>"
_ONE = f"{_NETWORK} <listen_address>"
_COMPLETE = ("network", "forward", "")

FORWARD = group(
    "forward",
    "Manage network forwards",
    (
        Command(
            "list",
            "List available network forwards",
            _NETWORK,
            _list,
            words=(1, 1),
            aliases=("ls",),
            options=(FORMAT,),
            complete=("network",),
        ),
        Command("show", "Show network forward configurations", _ONE, _show, words=(2, 2), complete=_COMPLETE),
        Command(
            "create",
            "Create new network forwards",
            f"{_ONE} [key=value...]",
            _create,
            words=(2, None),
            examples=(
                ("network forward create br0 192.0.2.10", "Reserve an address of the host for ports to come."),
                ("network forward create br0 192.0.2.10 target_address=10.0.3.5", "Send all of it to one instance."),
            ),
            complete=("network", ""),
        ),
        Command(
            "get",
            "Get values for network forward configuration keys",
            f"{_ONE} <key>",
            _get,
            words=(3, 3),
            complete=_COMPLETE,
        ),
        Command(
            "set",
            "Set network forward keys",
            f"{_ONE} <key>=<value>...",
            _set,
            words=(3, None),
            complete=_COMPLETE,
        ),
        Command(
            "unset",
            "Unset network forward configuration keys",
            f"{_ONE} <key>",
            _unset,
            words=(3, 3),
            complete=_COMPLETE,
        ),
        Command(
            "edit",
            "Edit network forward configurations as YAML",
            _ONE,
            _edit,
            words=(2, 2),
            complete=_COMPLETE,
            details="Reads the YAML from stdin when that is no terminal, and opens $EDITOR otherwise.",
        ),
        Command("delete", "Delete network forwards", _ONE, _delete, words=(2, 2), aliases=("rm",), complete=_COMPLETE),
        group(
            "port",
            "Manage network forward ports",
            (
                Command(
                    "add",
                    "Add ports to a forward",
                    f"{_ONE} <protocol> <listen_port(s)> <target_address> [<target_port(s)>]",
                    _add_port,
                    words=(5, 6),
                    examples=(
                        ("network forward port add br0 192.0.2.10 tcp 80,443 10.0.3.5", "Serve the web from there."),
                    ),
                    complete=_COMPLETE,
                ),
                Command(
                    "remove",
                    "Remove ports from a forward",
                    f"{_ONE} [<protocol>] [<listen_port(s)>]",
                    _remove_port,
                    words=(2, 4),
                    aliases=("rm",),
                    options=(Option("--force", help="Remove all ports that match"),),
                    complete=_COMPLETE,
                ),
            ),
        ),
    ),
)
