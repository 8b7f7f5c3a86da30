"""`pylxc config`: of an instance, or of the server when no instance is named."""

from __future__ import annotations

import sys

from pylxc.cli.edit import assignments, edit
from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.client.http import quote
from pylxc.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.entity import Entity
    from pylxc.cli.session import Session

SERVER = "/1.0"


def _instance() -> Entity:
    from pylxc.cli.profile import INSTANCE  # here, as `set` does without

    return INSTANCE


def _change(session: Session, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` work on the configuration of instance `name`, of the server when it is empty."""
    if name:
        _instance().change(session, name, lambda fields: change(fields["config"]))
        return
    reply = session.client.request("GET", SERVER)
    config = dict(reply.metadata["config"])
    change(config)
    session.client.request("PUT", SERVER, {"config": config}, if_match=reply.etag)


def _name_and_rest(session: Session, args: Args) -> tuple[str, list[str]]:
    """Split the words into an instance (or "") and the KEY=VALUE words, the form `KEY VALUE` allowed."""
    words = list(args.words)
    first = words[0]
    if first.endswith(":"):
        return session.name(first), words[1:]
    if "=" in first.partition(":")[2] or "=" in first:
        return session.name(""), words
    if len(words) == 2 and "=" not in words[1] and "." in first:
        return session.name(""), words  # `config set KEY VALUE` of the server; no instance has a dot in its name
    return session.name(first), words[1:]


def _show(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    name = session.name(args.words[0] if args.words else "")
    if not name:
        sys.stdout.write(yamltext.dump({"config": session.client.server["config"]}))
        return
    instance, _, snapshot = name.partition("/")
    if snapshot:
        found = session.client.instances.snapshots.read(instance, snapshot).metadata
        last = ("stateful", "size")  # in lxc's order
        order = ["expires_at", *sorted(found.keys() - {"expires_at", *last}), *last]
        sys.stdout.write(yamltext.dump({key: found[key] for key in order}))
        return
    reply = session.client.instances.read(name)
    fields = _instance().changeable(reply)
    if args.expanded:
        fields |= {"config": reply.metadata["expanded_config"], "devices": reply.metadata["expanded_devices"]}
    sys.stdout.write(yamltext.dump(fields))


def _get(session: Session, args: Args) -> None:
    name = session.name(args.words[0] if len(args.words) == 2 else "")
    key = args.words[-1]
    if not name:
        value = session.client.server["config"].get(key, "")
    else:
        instance = session.client.instances.get(name)
        value = instance["expanded_config" if args.expanded else "config"].get(key, "")
    print(str(value).lower() if isinstance(value, bool) else value)


def _set(session: Session, args: Args) -> None:
    name, rest = _name_and_rest(session, args)
    if not rest:
        raise UsageError("Too few arguments")
    values = assignments(rest, legacy=True)
    if name and all(values.values()):
        # The server merges: one request where reading, changing and writing back takes three.
        session.wait(session.client.start("PATCH", f"/1.0/instances/{quote(name)}", {"config": values}))
        return

    def change(config: dict[str, Any]) -> None:
        config.update(values)
        for key in [key for key, value in config.items() if value == ""]:
            del config[key]

    _change(session, name, change)


def _unset(session: Session, args: Args) -> None:
    name = session.name(args.words[0] if len(args.words) == 2 else "")
    key = args.words[-1]

    def change(config: dict[str, Any]) -> None:
        if name and key not in config:
            raise NotFound(f"Can't unset key {key!r}, it's not currently set")
        config[key] = ""  # the server says whether there can be such a key

    _change(session, name, change)


def _edit(session: Session, args: Args) -> None:
    name = session.name(args.words[0] if args.words else "")
    instance, _, snapshot = name.partition("/")
    if snapshot:
        _edit_snapshot(session, instance, snapshot)
        return
    if name:
        _instance().edit(session, args)
        return
    reply = session.client.request("GET", SERVER)

    def apply(fields: dict[str, Any]) -> None:
        session.client.request("PUT", SERVER, {"config": fields.get("config") or {}}, if_match=reply.etag)

    edit("server configuration", {"config": reply.metadata["config"]}, apply)


def _edit_snapshot(session: Session, name: str, snapshot: str) -> None:
    snapshots = session.client.instances.snapshots
    reply = snapshots.read(name, snapshot)

    def apply(fields: dict[str, Any]) -> None:
        session.wait(snapshots.update(name, snapshot, fields, if_match=reply.etag))

    edit("snapshot", {"expires_at": reply.metadata["expires_at"]}, apply)


_ONE = "[<remote>:][<instance>]"
_EXPANDED = Option("-e", "--expanded", help="Use the expanded configuration")
_COMPLETE = ("instance", "")
_KEY = ("instance|server key", "instance key")

COMMANDS = (
    Command(
        "config",
        "Manage instance and server configuration options",
        sub=(
            Command("device", "Manage devices", module="config_devices"),
            Command(
                "edit",
                "Edit instance or server configurations as YAML",
                _ONE,
                _edit,
                words=(0, 1),
                details="Reads the YAML from stdin when that is no terminal, and opens $EDITOR otherwise.",
                complete=_COMPLETE,
            ),
            Command(
                "get",
                "Get values for instance or server configuration keys",
                f"{_ONE} <key>",
                _get,
                words=(1, 2),
                options=(_EXPANDED,),
                complete=_KEY,
            ),
            Command("metadata", "Manage instance metadata files", module="config_files"),
            Command(
                "set",
                "Set instance or server configuration keys",
                f"{_ONE} <key>=<value>...",
                _set,
                words=(1, None),
                complete=("instance|server key=", "instance key="),
                examples=(
                    ("config set c01 limits.cpu=2", 'Limit "c01" to two CPUs.'),
                    ("config set core.shutdown_timeout=10", "Let a shutdown wait 10 minutes for operations."),
                ),
            ),
            Command(
                "show",
                "Show instance or server configurations",
                _ONE,
                _show,
                words=(0, 1),
                options=(_EXPANDED,),
                complete=_COMPLETE,
            ),
            Command("template", "Manage instance file templates", module="config_files"),
            Command("trust", "Manage trusted clients", module="trust"),
            Command(
                "unset",
                "Unset instance or server configuration keys",
                f"{_ONE} <key>",
                _unset,
                words=(1, 2),
                complete=_KEY,
            ),
        ),
    ),
)
