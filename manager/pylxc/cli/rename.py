"""`pylxc rename`."""

from __future__ import annotations

from pylxc.cli.grammar import Args, Command
from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session


def rename(session: Session, name: str, new: str) -> None:
    """Rename an instance, or a snapshot when `name` is INSTANCE/SNAPSHOT; `new` may then be so too."""
    name, _, snapshot = name.partition("/")
    new, _, new_snapshot = new.partition("/")
    instances = session.client.instances
    if not snapshot:
        session.wait(instances.rename(name, new), f"Renaming {name}")
        return
    if new_snapshot and new != name:
        raise BadRequest("A snapshot cannot be renamed to another instance's")
    if not new_snapshot and new == name:
        raise BadRequest("A new name for the snapshot is needed")
    session.wait(instances.snapshots.rename(name, snapshot, new_snapshot or new), f"Renaming {name}/{snapshot}")


def _run(session: Session, args: Args) -> None:
    rename(session, session.required(args.words[0]), session.new_name(args.words[1]))


COMMANDS = (
    Command(
        "rename",
        "Rename instances and snapshots",
        "[<remote>:]<instance>[/<snapshot>] <new-name>",
        _run,
        words=(2, 2),
        complete=("instance", ""),
    ),
)
