"""`pylxc snapshot` and `pylxc restore`."""

from __future__ import annotations

from contextlib import suppress

from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session

NEVER = "0001-01-01T00:00:00Z"


def _snapshot(session: Session, args: Args) -> None:
    snapshots = session.client.instances.snapshots
    name = session.required(args.words[0])
    if "/" in name:
        raise UsageError("Invalid instance name: a snapshot has no snapshots", COMMANDS[0])
    snapshot = args.words[1] if len(args.words) > 1 else ""
    if args.reuse and snapshot:
        with suppress(NotFound):
            session.wait(snapshots.delete(name, snapshot), f"Deleting {name}/{snapshot}")
    expires_at = NEVER if args.no_expiry else None
    operation = snapshots.create(name, snapshot, stateful=args.stateful, expires_at=expires_at)
    session.wait(operation, f"Snapshotting {name}")


def _restore(session: Session, args: Args) -> None:
    name, snapshot = session.required(args.words[0]), args.words[1]
    operation = session.client.instances.restore(name, snapshot.removeprefix(f"{name}/"), stateful=args.stateful)
    session.wait(operation, f"Restoring {name}")


COMMANDS = (
    Command(
        "snapshot",
        "Create instance snapshots",
        "[<remote>:]<instance> [<snapshot name>]",
        _snapshot,
        words=(1, 2),
        options=(
            Option("--no-expiry", help="Ignore any configured auto-expiry for the instance"),
            Option("--reuse", help="If the snapshot name already exists, delete and create a new one"),
            Option("--stateful", help="Whether or not to snapshot the instance's running state"),
        ),
        examples=(("snapshot u1 snap0", 'Create a snapshot of "u1" called "snap0".'),),
        complete=("instance", ""),
    ),
    Command(
        "restore",
        "Restore instances from snapshots",
        "[<remote>:]<instance> <snapshot>",
        _restore,
        words=(2, 2),
        options=(Option("--stateful", help="Whether or not to restore the instance's running state from snapshot"),),
        examples=(("restore u1 snap0", 'Bring "u1" back to what it was when "snap0" was taken.'),),
        complete=("instance", "snapshot"),
    ),
)
