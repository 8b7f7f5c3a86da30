"""`pylxc storage volume export` and `import`: custom volumes to and from files, or straight through a pipe."""

from __future__ import annotations

from pylxc.cli.backup import COMPRESSION, OPTIMIZED, bring_back, export
from pylxc.cli.grammar import Args, Command, Option
from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session


def _export(session: Session, args: Args) -> None:
    pool, name = session.required(args.words[0], "storage pool"), args.words[1].removeprefix("custom/")
    target = args.words[2] if len(args.words) > 2 else ""
    export(session, args, EXPORT, f"{_volumes(pool)}/{quote(name)}", name, target, "volume-only")


def _import(session: Session, args: Args) -> None:
    pool = session.required(args.words[0], "storage pool")
    name = args.words[2] if len(args.words) > 2 else ""
    operation = bring_back(session, _volumes(pool), args.words[1], {"name": name})
    if not session.quiet:
        print(f"Storage volume {operation.metadata['volume']} imported")


def _volumes(pool: str) -> str:
    return f"/1.0/storage-pools/{quote(pool)}/volumes/custom"


EXPORT = Command(
    "export",
    "Export custom storage volumes",
    "[<remote>:]<pool> <volume> [<target>|-]",
    _export,
    words=(2, 3),
    options=(COMPRESSION, OPTIMIZED, Option("--volume-only", help="Leave the snapshots out")),
    details="""
The target defaults to backup.tar.gz. It is packed while it is sent; nothing of it is kept on the server. Instances may
run with the volume.
""",
    examples=(("storage volume export default data data.tar.gz", "Write a backup with all snapshots."),),
    complete=("pool", "volume", "file"),
)
IMPORT = Command(
    "import",
    "Import backups of custom storage volumes",
    "[<remote>:]<pool> <backup file>|- [<volume>]",
    _import,
    words=(2, 3),
    examples=(("storage volume import default data.tar.gz data2", "Make a volume of a backup under another name."),),
    complete=("pool", "file", ""),
)
