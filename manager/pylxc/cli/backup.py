"""`pylxc export` and `pylxc import`: instances to and from files, or straight through a pipe."""

from __future__ import annotations

import os
import sys

from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.cli.new_file import NewFile
from pylxc.cli.transfer import Transfer
from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session
    from pylxc.client.operations import Operation

_TARGET = "backup.tar.gz"  # as lxc, whatever the compression

COMPRESSION = Option("--compression", help="bzip2, gzip, lzma, xz, zstd, or none", kind="value")
OPTIMIZED = Option("--optimized-storage", help="Use the storage driver's own format where it has one")


def export(session: Session, args: Args, command: Command, url: str, name: str, target: str, alone: str) -> None:
    """Write a backup to a file, or to stdout.

    Args:
        session: the server.
        args: of `command`, which has the options above.
        command: what usage errors are about.
        url: of what is backed up.
        name: what it is called.
        target: the file, "-" for stdout, "" for backup.tar.gz.
        alone: the option that leaves snapshots out.
    """
    target = target or _TARGET
    if target == "-" and sys.stdout.isatty():
        raise UsageError("A backup is not written to a terminal", command)
    query: dict[str, str | int] = {"compression": args.compression or ""}
    for option in (alone, "optimized-storage"):
        if getattr(args, option.replace("-", "_")):
            query[option] = "true"

    def receive(fd: int) -> None:
        response = session.client.stream("GET", f"{url}/export", query=query)
        with Transfer(session, f"Exporting {name}", 0) as transfer:
            response.into(fd, transfer.advance)

    if target == "-":
        receive(1)
        return
    with NewFile(target, 0o600) as file:
        receive(file.fd)
    if not session.quiet:
        print(f"Backup exported to {target}")


def bring_back(session: Session, url: str, file: str, headers: dict[str, str]) -> Operation:
    """Send a backup from a file, or from stdin ("-"), and wait until what it is of is there again.

    Args:
        session: the server.
        url: what takes it.
        file: the file.
        headers: what is to be different from the backup: `name`, `pool`; what is empty is not.
    """
    fd = 0 if file == "-" else os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size if file != "-" else 0
        sent = {"Content-Type": "application/octet-stream"}
        sent |= {f"X-LXD-{key}": value for key, value in headers.items() if value}
        with Transfer(session, "Importing the backup", size) as transfer:
            operation = session.client.upload(url, fd, headers=sent, on_bytes=transfer.advance)
    finally:
        if fd:
            os.close(fd)
    session.wait(operation, "Importing the backup")
    return operation


def _export(session: Session, args: Args) -> None:
    name = session.required(args.words[0])
    if "/" in name:
        hint = f"pylxc publish {name}, or pylxc copy {name} NAME and export that"
        raise BadRequest("A snapshot is exported together with its instance only", hint=hint)
    target = args.words[1] if len(args.words) > 1 else ""
    export(session, args, COMMANDS[0], session.client.instances.url(name), name, target, "instance-only")


def _import(session: Session, args: Args) -> None:
    words = list(args.words)
    if words[0].endswith(":") and len(words) > 1 and not os.path.exists(words[0]):
        session.name(words.pop(0))
    if len(words) > 2:
        raise UsageError("Too many arguments", COMMANDS[1])
    name = session.new_name(words[1]) if len(words) > 1 else ""
    operation = bring_back(session, "/1.0/instances", words[0], {"name": name, "pool": args.storage or ""})
    if not session.quiet:
        print(f"Instance {operation.metadata['instance']} imported")


COMMANDS = (
    Command(
        "export",
        "Export instance backups",
        "[<remote>:]<instance> [<target>|-]",
        _export,
        words=(1, 2),
        options=(COMPRESSION, Option("--instance-only", help="Leave the snapshots out"), OPTIMIZED),
        details="""
The target defaults to backup.tar.gz. It is packed while it is sent; nothing of it is kept on the server. The instance
may run.
""",
        examples=(
            ("export web web.tar.gz", "Write a backup with all snapshots."),
            ("export web - --compression zstd | ssh other pylxc import -", "Copy an instance to another machine."),
        ),
        complete=("instance", "file"),
    ),
    Command(
        "import",
        "Import instance backups",
        "[<remote>:] <backup file>|- [<instance name>]",
        _import,
        words=(1, 3),
        options=(Option("-s", "--storage", help="Storage pool name", kind="value", complete="pool"),),
        examples=(("import web.tar.gz web2", "Make an instance of a backup under another name."),),
        complete=("file", ""),
    ),
)
