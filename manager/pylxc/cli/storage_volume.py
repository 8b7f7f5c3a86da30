"""`pylxc storage volume`."""

from __future__ import annotations

import sys
from contextlib import suppress

from pylxc.cli.copy import MODE
from pylxc.cli.edit import assignments, edit
from pylxc.cli.entity import Entity, group
from pylxc.cli.grammar import Args, Command, Option
from pylxc.cli.output import format_time, plain, table
from pylxc.cli.profile import INSTANCE, PROFILE
from pylxc.cli.snapshot import NEVER
from pylxc.cli.storage_volume_backup import EXPORT, IMPORT
from pylxc.cli.storage_volume_list import LIST
from pylxc.client.http import quote
from pylxc.errors import BadRequest, Conflict, NotFound
from pylxc.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session
    from pylxc.client.client import Reply

_KINDS = ("container", "custom", "image", "virtual-machine")


class _Volume:
    """A volume that the command line names, `[TYPE/]VOLUME[/SNAPSHOT]` in a pool; of type custom unless it says so."""

    def __init__(self, session: Session, pool: str, text: str) -> None:
        first, slash, rest = text.partition("/")
        self.kind, name = (first, rest) if slash and first in _KINDS else ("custom", text)
        self.pool = session.required(pool, "storage pool")
        self.name, _, self.snapshot = name.partition("/")
        if not self.name:
            raise BadRequest(f"The name of the storage volume is missing in {text!r}")
        self._session = session

    @property
    def path(self) -> str:
        """Where it is on the server."""
        path = f"{_volumes(self.pool)}/{self.kind}/{quote(self.name)}"
        return f"{path}/snapshots/{quote(self.snapshot)}" if self.snapshot else path

    def read(self) -> Reply:
        """Return it as it is, with its etag."""
        return self._session.client.request("GET", self.path)


def _volumes(pool: str) -> str:
    return f"/1.0/storage-pools/{quote(pool)}/volumes"


def _named(session: Session, args: Args) -> _Volume:
    return _Volume(session, args.words[0], args.words[1])


def _in_pool(session: Session, text: str) -> _Volume:
    """Return what `[<remote>:]<pool>/<volume>[/<snapshot>]` names."""
    pool, slash, volume = text.partition("/")
    if not slash:
        raise BadRequest(f"No storage pool in {text!r}", hint="POOL/VOLUME is needed")
    return _Volume(session, pool, f"custom/{volume}")


def _say(session: Session, text: str) -> None:
    if not session.quiet:
        print(text)


# Making and deleting


def _create(session: Session, args: Args) -> None:
    pool, name = session.required(args.words[0], "storage pool"), args.words[1]
    body = {"name": name, "type": "custom", "content_type": args.type, "config": assignments(args.words[2:])}
    session.client.request("POST", f"{_volumes(pool)}/custom", body)
    _say(session, f"Storage volume {name} created")


def _delete(session: Session, args: Args) -> None:
    session.wait(session.client.start("DELETE", _named(session, args).path))
    _say(session, f"Storage volume {args.words[1]} deleted")


def _copy(session: Session, args: Args) -> None:
    source, target = (_in_pool(session, word) for word in args.words)
    body = {
        "name": target.name,
        "type": "custom",
        "source": {
            "type": "copy",
            "name": f"{source.name}/{source.snapshot}" if source.snapshot else source.name,
            "pool": source.pool,
            "project": session.project,
            "volume_only": args.volume_only,
            "refresh": args.refresh,
        },
    }
    query = {"project": args.target_project or session.project}
    operation = session.client.start("POST", f"{_volumes(target.pool)}/custom", body, query=query)
    session.wait(operation, f"Copying {args.words[0]}")
    _say(session, "Storage volume copied successfully!")


def _move(session: Session, args: Args) -> None:
    source, target = (_in_pool(session, word) for word in args.words)
    if source.snapshot:
        raise BadRequest("Snapshots cannot be moved, but copied")
    body = {"name": target.name, "pool": target.pool, "project": args.target_project or session.project}
    session.wait(session.client.start("POST", source.path, body), f"Moving {args.words[0]}")
    _say(session, "Storage volume moved successfully!")


def _rename(session: Session, args: Args) -> None:
    source, new = _named(session, args), args.words[2]
    name, _, snapshot = new.partition("/")
    if source.snapshot and (not snapshot or name != source.name):
        raise BadRequest("Invalid new snapshot name, parent volume must be the same as source")
    session.wait(session.client.start("POST", source.path, {"name": snapshot or new}))
    _say(session, f'Renamed storage volume from "{args.words[1]}" to "{snapshot or new}"')


# Showing and changing


def _show(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    found = _named(session, args).read().metadata
    if "used_by" in found:
        found["used_by"] = sorted(found["used_by"])
    sys.stdout.write(yamltext.dump(found))


def _get(session: Session, args: Args) -> None:
    print(_named(session, args).read().metadata["config"].get(args.words[2], ""))


def _change(session: Session, args: Args, change: Callable[[dict[str, str]], None]) -> None:
    volume = _named(session, args)
    if volume.snapshot:
        raise BadRequest("Snapshots are read-only and can't have their configuration changed")
    volumes = Entity("storage volume", f"{_volumes(volume.pool)}/{volume.kind}", ("config", "description"))
    volumes.change(session, volume.name, lambda fields: change(fields["config"]))


def _set(session: Session, args: Args) -> None:
    values = assignments(args.words[2:], legacy=True)
    _change(session, args, lambda config: config.update(values))


def _unset(session: Session, args: Args) -> None:
    _change(session, args, lambda config: config.update({args.words[2]: ""}))


def _edit(session: Session, args: Args) -> None:
    volume = _named(session, args)
    reply = volume.read()
    fields = ("description", "expires_at") if volume.snapshot else ("config", "description")
    edit(
        "storage volume snapshot" if volume.snapshot else "storage volume",
        {key: reply.metadata[key] for key in fields},
        lambda changed: session.client.request("PUT", volume.path, changed, if_match=reply.etag),
    )


def _info(session: Session, args: Args) -> None:
    volume = _named(session, args)
    found = volume.read().metadata
    usage = (session.client.get(f"{volume.path}/state").get("usage")) or {}
    lines = [f"Name: {found['name']}"]
    if found["description"]:
        lines.append(f"Description: {found['description']}")
    lines += [f"Type: {found['type']}", f"Content type: {found['content_type']}"]
    if "used" in usage:
        lines.append(f"Usage: {binary_size(usage['used'])}")
    if usage.get("total"):
        lines.append(f"Total: {binary_size(usage['total'])}")
    lines.append(f"Created: {format_time(found['created_at'])}")
    if volume.kind == "custom":
        rows = [
            [one["name"].partition("/")[2], one["description"], format_time(one["expires_at"] or NEVER)]
            for one in session.client.get(f"{volume.path}/snapshots", recursion=1)
        ]
        if rows:
            lines += ["", "Snapshots:", *table(("NAME", "DESCRIPTION", "EXPIRES AT"), rows)]
    print(plain("\n".join(lines)))


# Snapshots


def _snapshot(session: Session, args: Args) -> None:
    volume = _named(session, args)
    if volume.snapshot:
        raise BadRequest("Invalid storage volume name: a snapshot has no snapshots")
    name = args.words[2] if len(args.words) > 2 else ""
    path = f"{volume.path}/snapshots"
    if args.reuse and name:
        with suppress(NotFound):
            session.wait(session.client.start("DELETE", f"{path}/{quote(name)}"), f"Deleting {name}")
    body = {"name": name} | ({"expires_at": NEVER} if args.no_expiry else {})
    session.wait(session.client.start("POST", path, body), f"Snapshotting {volume.name}")


def _restore(session: Session, args: Args) -> None:
    volume = _named(session, args)
    snapshot = args.words[2].removeprefix(f"{volume.name}/")
    session.client.request("PUT", volume.path, {"restore": snapshot})


# Instances and profiles


def _attach(entity: Entity, session: Session, args: Args) -> None:
    volume = _named(session, args)
    if volume.kind != "custom" or volume.snapshot:
        raise BadRequest('Only "custom" volumes can be attached')
    volume.read()
    more = args.words[3:]
    device = {"type": "disk", "pool": volume.pool, "source": volume.name} | ({"path": more[-1]} if more else {})
    name = more[0] if len(more) > 1 else volume.name

    def change(fields: dict[str, Any]) -> None:
        if name in fields["devices"]:
            raise Conflict(f"Device {name!r} already exists", hint="name another one before the path")
        fields["devices"][name] = device

    entity.change(session, args.words[2], change)


def _detach(entity: Entity, session: Session, args: Args) -> None:
    volume = _named(session, args)
    name = args.words[3] if len(args.words) > 3 else ""

    def change(fields: dict[str, Any]) -> None:
        devices = fields["devices"]
        found = [
            key
            for key, one in devices.items()
            if one.get("type") == "disk" and (one.get("pool"), one.get("source")) == (volume.pool, volume.name)
        ]
        if not name and len(found) > 1:
            raise BadRequest("More than one device matches, specify the device name", hint=", ".join(found))
        if not name and not found:
            raise NotFound("No device found for this storage volume")
        if name and name not in devices:
            raise NotFound("The specified device doesn't exist")
        del devices[name or found[0]]

    entity.change(session, args.words[2], change)


def _to_instance(session: Session, args: Args) -> None:
    _attach(INSTANCE, session, args)


def _to_profile(session: Session, args: Args) -> None:
    _attach(PROFILE, session, args)


def _from_instance(session: Session, args: Args) -> None:
    _detach(INSTANCE, session, args)


def _from_profile(session: Session, args: Args) -> None:
    _detach(PROFILE, session, args)


_POOL = "[<remote>:]<pool>"
_ONE = f"{_POOL} <volume>"
_ANY = f"{_ONE}[/<snapshot>]"
_COMPLETE = ("pool", "volume", "")
_BETWEEN = ("pool/volume",)
_TARGET_PROJECT = Option(
    "--target-project", help="A project different from the source's", kind="value", complete="project"
)

VOLUME = group(
    "volume",
    "Manage storage volumes",
    (
        Command(
            "attach",
            "Attach new storage volumes to instances",
            f"{_ONE} <instance> [<device name>] [<path>]",
            _to_instance,
            words=(3, 5),
            examples=(("storage volume attach default data c01 /srv", 'Mount volume "data" in "c01".'),),
            complete=("pool", "volume", "instance", ""),
        ),
        Command(
            "attach-profile",
            "Attach new storage volumes to profiles",
            f"{_ONE} <profile> [<device name>] [<path>]",
            _to_profile,
            words=(3, 5),
            complete=("pool", "volume", "profile", ""),
        ),
        Command(
            "copy",
            "Copy storage volumes",
            f"{_POOL}/<volume>[/<snapshot>] {_POOL}/<volume>",
            _copy,
            words=(2, 2),
            aliases=("cp",),
            options=(
                MODE,
                Option("--refresh", help="Bring a copy that is there already up to date"),
                _TARGET_PROJECT,
                Option("--volume-only", help="Copy the volume without its snapshots"),
            ),
            complete=_BETWEEN,
        ),
        Command(
            "create",
            "Create new custom storage volumes",
            f"{_ONE} [key=value...]",
            _create,
            words=(2, None),
            options=(Option("--type", help="Content type: filesystem", kind="value", default="filesystem"),),
            examples=(("storage volume create default data size=5GiB", "Create a volume of 5 GiB at most."),),
            complete=("pool", "", "storage-volume key="),
        ),
        Command("delete", "Delete storage volumes", _ANY, _delete, words=(2, 2), aliases=("rm",), complete=_COMPLETE),
        Command(
            "detach",
            "Detach storage volumes from instances",
            f"{_ONE} <instance> [<device name>]",
            _from_instance,
            words=(3, 4),
            complete=("pool", "volume", "instance", ""),
        ),
        Command(
            "detach-profile",
            "Detach storage volumes from profiles",
            f"{_ONE} <profile> [<device name>]",
            _from_profile,
            words=(3, 4),
            complete=("pool", "volume", "profile", ""),
        ),
        Command(
            "edit",
            "Edit storage volume configurations as YAML",
            _ANY,
            _edit,
            words=(2, 2),
            complete=_COMPLETE,
            details="Reads the YAML from stdin when that is no terminal, and opens $EDITOR otherwise.",
        ),
        EXPORT,
        Command(
            "get",
            "Get values for storage volume configuration keys",
            f"{_ANY} <key>",
            _get,
            words=(3, 3),
            complete=_COMPLETE,
        ),
        IMPORT,
        Command("info", "Show storage volume state information", _ONE, _info, words=(2, 2), complete=_COMPLETE),
        LIST,
        Command(
            "move",
            "Move storage volumes between pools",
            f"{_POOL}/<volume> {_POOL}/<volume>",
            _move,
            words=(2, 2),
            aliases=("mv",),
            options=(MODE, _TARGET_PROJECT),
            details="Instances and profiles that have the volume follow; none may run with it.",
            complete=_BETWEEN,
        ),
        Command(
            "rename",
            "Rename storage volumes and storage volume snapshots",
            f"{_POOL} <old name>[/<old snapshot name>] <new name>[/<new snapshot name>]",
            _rename,
            words=(3, 3),
            details="Instances and profiles that have the volume follow; none may run with it.",
            complete=_COMPLETE,
        ),
        Command(
            "restore",
            "Restore storage volume snapshots",
            f"{_ONE} <snapshot>",
            _restore,
            words=(3, 3),
            complete=_COMPLETE,
        ),
        Command(
            "set",
            "Set storage volume configuration keys",
            f"{_ONE} <key>=<value>...",
            _set,
            words=(3, None),
            complete=("pool", "volume", "storage-volume key="),
        ),
        Command(
            "show",
            "Show storage volume configurations",
            _ANY,
            _show,
            words=(2, 2),
            examples=(("storage volume show default container/c01", 'Show the volume of the instance "c01".'),),
            complete=_COMPLETE,
        ),
        Command(
            "snapshot",
            "Snapshot storage volumes",
            f"{_ONE} [<snapshot>]",
            _snapshot,
            words=(2, 3),
            options=(
                Option("--no-expiry", help="Ignore any configured auto-expiry for the storage volume"),
                Option("--reuse", help="If the snapshot name already exists, delete and create a new one"),
            ),
            complete=_COMPLETE,
        ),
        Command(
            "unset",
            "Unset storage volume configuration keys",
            f"{_ONE} <key>",
            _unset,
            words=(3, 3),
            complete=_COMPLETE,
        ),
    ),
)
