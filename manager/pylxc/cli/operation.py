"""`pylxc operation`."""

from __future__ import annotations

import sys

from pylxc.cli.grammar import FORMAT, Args, Command
from pylxc.cli.output import format_time, show, yes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session


def _list(session: Session, args: Args) -> None:
    session.name(args.words[0] if args.words else "")
    operations = session.client.operations.list()
    if not operations:
        session.check_project()
    rows = [
        [
            one["id"],
            one["class"].upper(),
            one["description"],
            one["status"].upper(),
            yes(one["may_cancel"]),
            format_time(one["created_at"]),
        ]
        for one in sorted(operations, key=lambda one: str(one["created_at"]))
    ]
    show(args.format, ("ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"), rows, operations)


def _show(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    sys.stdout.write(yamltext.dump(session.client.operations.get(session.required(args.words[0], "operation"))))


def _delete(session: Session, args: Args) -> None:
    name = session.required(args.words[0], "operation")
    session.client.operations.cancel(name)
    if not session.quiet:
        print(f"Operation {name} deleted")


COMMANDS = (
    Command(
        "operation",
        "List, show and delete background operations",
        sub=(
            Command(
                "delete",
                "Delete a background operation (will attempt to cancel)",
                "[<remote>:]<operation>",
                _delete,
                words=(1, 1),
                aliases=("cancel", "rm"),
                complete=("operation",),
            ),
            Command(
                "list",
                "List background operations",
                "[<remote>:]",
                _list,
                words=(0, 1),
                aliases=("ls",),
                options=(FORMAT,),
            ),
            Command(
                "show",
                "Show details on a background operation",
                "[<remote>:]<operation>",
                _show,
                words=(1, 1),
                complete=("operation",),
            ),
        ),
    ),
)
