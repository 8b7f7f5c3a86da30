"""`pylxc warning`."""

from __future__ import annotations

import sys

from pylxc.cli.grammar import FORMAT, Args, Command, Option, UsageError
from pylxc.cli.output import format_time, show
from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_PATH = "/1.0/warnings"
_DEFAULT_COLUMNS = "utSscpLl"

# Letter: title, field.
_COLUMNS = {
    "c": ("COUNT", "count"),
    "f": ("FIRST SEEN", "first_seen_at"),
    "l": ("LAST SEEN", "last_seen_at"),
    "L": ("LOCATION", "location"),
    "p": ("PROJECT", "project"),
    "s": ("SEVERITY", "severity"),
    "S": ("STATUS", "status"),
    "t": ("TYPE", "type"),
    "u": ("UUID", "uuid"),
}


def _cell(warning: dict[str, Any], field: str) -> str:
    if field.endswith("_at"):
        return format_time(warning[field])
    text = str(warning[field])
    return text.upper() if field in ("severity", "status") else text


def _list(session: Session, args: Args) -> None:
    session.name(args.words[0] if args.words else "")
    if unknown := [letter for letter in args.columns if letter not in _COLUMNS]:
        raise UsageError(f"Unknown column shorthand char {unknown[0]!r} in {args.columns!r}")
    found = session.client.get(_PATH, recursion=1)
    if not args.all:
        found = [each for each in found if each["status"] == "new"]
    columns = [_COLUMNS[letter] for letter in args.columns]
    rows = [[_cell(each, field) for _, field in columns] for each in found]
    show(args.format, [title for title, _ in columns], rows, found)


def _show(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    sys.stdout.write(yamltext.dump(session.client.get(_url(session, args.words[0]))))


def _acknowledge(session: Session, args: Args) -> None:
    for word in args.words:
        session.client.request("PUT", _url(session, word), {"status": "acknowledged"})


def _delete(session: Session, args: Args) -> None:
    if args.all:
        session.name(args.words[0] if args.words else "")
        urls = [f"{_PATH}/{each['uuid']}" for each in session.client.get(_PATH, recursion=1)]
    else:
        urls = [_url(session, word) for word in args.words]
        if not urls:
            raise UsageError("Specify a warning UUID or use --all")
    for url in urls:
        session.client.request("DELETE", url)


def _url(session: Session, word: str) -> str:
    return f"{_PATH}/{quote(session.required(word, 'warning'))}"


_ONE = "[<remote>:]<warning-uuid>"

COMMANDS = (
    Command(
        "warning",
        "Show and acknowledge the server's warnings",
        sub=(
            Command(
                "acknowledge",
                "Acknowledge warnings",
                f"{_ONE}...",
                _acknowledge,
                words=(1, None),
                aliases=("ack",),
                complete=("warning",),
            ),
            Command(
                "delete",
                "Delete warnings",
                f"{_ONE}...",
                _delete,
                words=(0, None),
                aliases=("rm",),
                complete=("warning",),
                options=(Option("-a", "--all", help="Delete all warnings"),),
            ),
            Command(
                "list",
                "List warnings",
                "[<remote>:]",
                _list,
                words=(0, 1),
                aliases=("ls",),
                options=(
                    Option("-a", "--all", help="List acknowledged and resolved warnings too"),
                    Option("-c", "--columns", help="Columns", kind="value", default=_DEFAULT_COLUMNS),
                    FORMAT,
                ),
                details="""
Columns are letters:
  c Count        f First seen   l Last seen    L Location     p Project
  s Severity     S Status       t Type         u UUID
""",
            ),
            Command("show", "Show a warning", _ONE, _show, words=(1, 1), complete=("warning",)),
        ),
    ),
)
