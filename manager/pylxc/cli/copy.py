"""`pylxc copy` and `pylxc move`."""

from __future__ import annotations

from pylxc.cli.edit import assignments
from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.cli.rename import rename
from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_VOLATILE = "volatile."


def _copy(session: Session, args: Args) -> None:
    source = session.required(args.words[0])
    target = session.name(args.words[1]) if len(args.words) > 1 else ""
    if not target and (args.refresh or len(args.words) < 2):
        raise BadRequest("A name for the copy is needed")
    body: dict[str, Any] = {
        "name": target,
        "config": assignments(args.config),
        "devices": _devices(session, args, source),
        "ephemeral": args.ephemeral,
        "source": {
            "type": "copy",
            "source": source,
            "project": session.project,
            "instance_only": args.instance_only,
            "refresh": args.refresh,
            "allow_inconsistent": args.allow_inconsistent,
        },
    }
    if args.no_profiles or args.profile:
        body["profiles"] = [] if args.no_profiles else args.profile
    query: dict[str, str | int] | None = {"project": args.target_project} if args.target_project else None
    operation = session.client.start("POST", "/1.0/instances", body, query=query)
    session.wait(operation, f"Copying {source}")
    if args.refresh:
        _settle(session, body, _read(session, source), query)
    if not target and not session.quiet:
        print(f"Instance name is: {operation.first('instances')}")


def _settle(session: Session, body: dict[str, Any], source: dict[str, Any], query: dict[str, str | int] | None) -> None:
    """Give a copy that was brought up to date the configuration of its source too, with the changes in `body`.

    Its volatile keys and the pool of its root disk stay.
    """
    from pylxc.cli.profile import INSTANCE

    url = INSTANCE.url(body["name"])
    reply = session.client.request("GET", url, query=query)
    copy, fields = reply.metadata, INSTANCE.changeable(reply)
    fields |= {
        "config": {
            **{key: value for key, value in source["config"].items() if not key.startswith(_VOLATILE)},
            **{key: value for key, value in copy["config"].items() if key.startswith(_VOLATILE)},
            **body["config"],
        },
        "description": source.get("description", ""),
        "devices": {**source["devices"], **body["devices"]},
        "ephemeral": body["ephemeral"],
        "profiles": body.get("profiles", source["profiles"]),
    }
    root = _root(copy["expanded_devices"])
    if device := fields["devices"].get(root) or copy["devices"].get(root):
        fields["devices"][root] = {**device, "pool": copy["expanded_devices"][root]["pool"]}
    session.wait(session.client.start("PUT", url, fields, query=query, if_match=reply.etag))


def _read(session: Session, source: str) -> dict[str, Any]:
    name, _, snapshot = source.partition("/")
    instances = session.client.instances
    return dict((instances.snapshots.read(name, snapshot) if snapshot else instances.read(name)).metadata)


def _root(devices: dict[str, dict[str, str]]) -> str:
    return next((name for name, one in devices.items() if one.get("type") == "disk" and one.get("path") == "/"), "root")


def _devices(session: Session, args: Args, source: str) -> dict[str, dict[str, str]]:
    """Return the devices that are to differ from the source's."""
    wanted: dict[str, dict[str, str]] = {}
    for entry in args.device:
        name, comma, setting = entry.partition(",")
        if not comma:
            raise UsageError(f"Bad device {entry!r}, it must be DEVICE,KEY=VALUE", COMMANDS[0])
        wanted[name] = wanted.get(name, {}) | assignments([setting])
    if args.storage:
        session.client.storage_pools.get(args.storage)
    if not wanted and not args.storage:
        return {}
    present: dict[str, dict[str, str]] = _read(session, source)["expanded_devices"]
    if args.storage:
        root = _root(present)
        wanted[root] = {"type": "disk", "path": "/"} | wanted.get(root, {}) | {"pool": args.storage}
    return {name: present.get(name, {}) | device for name, device in wanted.items()}


def _move(session: Session, args: Args) -> None:
    source = session.required(args.words[0])
    target = session.name(args.words[1]) if len(args.words) > 1 else ""
    if not args.storage and not args.target_project:
        if not target:
            raise UsageError("A new name, --storage or --target-project is needed", COMMANDS[1])
        rename(session, source, target)
        return
    body = {
        "name": target or source,
        "migration": True,
        "pool": args.storage,
        "project": args.target_project,
        "instance_only": args.instance_only,
    }
    session.wait(session.client.start("POST", session.client.instances.url(source), body), f"Moving {source}")


MODE = Option(
    "--mode",
    help="Way between servers; on one server all are the same",
    kind="value",
    choices=("pull", "push", "relay"),
)
_STORAGE = Option("-s", "--storage", help="Storage pool name", kind="value", complete="pool")

COMMANDS = (
    Command(
        "copy",
        "Copy instances",
        "[<remote>:]<source>[/<snapshot>] [<remote>:][<destination>]",
        _copy,
        words=(1, 2),
        aliases=("cp",),
        options=(
            Option("--allow-inconsistent", help="Do not pause a running source while its files are copied"),
            Option("-c", "--config", help="Config key/value to apply to the copy", kind="list"),
            Option("-d", "--device", help="New key/value to apply to a specific device", kind="list"),
            Option("-e", "--ephemeral", help="Ephemeral instance"),
            Option("--instance-only", help="Copy the instance without its snapshots"),
            MODE,
            Option("--no-profiles", help="Create the copy with no profiles applied"),
            Option("-p", "--profile", help="Profile to apply to the copy", kind="list", complete="profile"),
            Option("--refresh", help="Bring a copy that is there already up to date"),
            Option("--stateless", help="Copy a running instance without its state, which is done in any case"),
            _STORAGE,
            Option("--target-project", help="Copy to a project different from the source", kind="value",
                   complete="project"),
        ),
        examples=(
            ("copy web web2", "Copy an instance with its snapshots; it may run meanwhile."),
            ("copy web/before-upgrade test", "Make an instance of a snapshot."),
            ("copy web spare --refresh", "Copy only what has changed since the last time, and the configuration."),
        ),
        complete=("instance", ""),
    ),
    Command(
        "move",
        "Move and rename instances",
        "[<remote>:]<instance>[/<snapshot>] [<new-name>]",
        _move,
        words=(1, 2),
        aliases=("mv",),
        options=(
            Option("--instance-only", help="Move the instance without its snapshots"),
            MODE,
            Option("--stateless", help="Move an instance without its state: it is stopped in any case"),
            _STORAGE,
            Option("--target-project", help="Move to a project different from the source", kind="value",
                   complete="project"),
        ),
        examples=(
            ("move web www", "Rename an instance."),
            ("move web --target-project shop", "Move an instance to another project."),
            ("move web --storage fast", "Move an instance to another storage pool."),
        ),
        complete=("instance", ""),
    ),
)  # fmt: skip
