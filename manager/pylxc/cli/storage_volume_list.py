"""`pylxc storage volume list`."""

from __future__ import annotations

from pylxc.cli.grammar import FORMAT, Args, Command, Option, UsageError
from pylxc.cli.output import show, sort_rows
from pylxc.client.http import quote
from pylxc.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session


def _kind(volume: dict[str, Any]) -> str:
    return f"{volume['type']} (snapshot)" if "/" in volume["name"] else str(volume["type"])


def _usage(volume: dict[str, Any]) -> str:
    return binary_size(volume["used"]) if "used" in volume else ""


COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "c": ("CONTENT-TYPE", lambda v: str(v["content_type"])),
    "d": ("DESCRIPTION", lambda v: str(v["description"])),
    "e": ("PROJECT", lambda v: str(v["project"])),
    "L": ("LOCATION", lambda v: str(v["location"])),
    "n": ("NAME", lambda v: str(v["name"])),
    "t": ("TYPE", _kind),
    "u": ("USED BY", lambda v: str(len(v["used_by"]))),
    "U": ("USAGE", _usage),
}
DEFAULT_COLUMNS = "tndcu"


def _list(session: Session, args: Args) -> None:
    columns = args.columns or ("e" if args.all_projects else "") + DEFAULT_COLUMNS
    for letter in columns.replace(",", ""):
        if letter not in COLUMNS:
            raise UsageError(f"Unknown column shorthand char {letter!r} in {columns!r}", LIST)
    chosen = [COLUMNS[letter] for letter in columns.replace(",", "")]
    pool = session.required(args.words[0], "storage pool")
    path = f"/1.0/storage-pools/{quote(pool)}/volumes"
    query: dict[str, str | int] = {"recursion": 1}
    if args.all_projects:
        query["all-projects"] = "true"
    if len(args.words) > 1:
        query["filter"] = " and ".join(_clause(word) for word in args.words[1:])
    found = session.client.request("GET", path, query=query).metadata
    if "U" in columns and args.format in {"csv", "table", "compact"}:
        _measure(session, path, found)
    rows = [[cell(volume) for _, cell in chosen] for volume in found]
    show(args.format, [title for title, _ in chosen], sort_rows(rows), found)


def _clause(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key} eq {value}" if equals else f"name eq ^{word}"


def _measure(session: Session, path: str, volumes: list[dict[str, Any]]) -> None:
    for volume in volumes:
        if "/" not in volume["name"]:
            state = session.client.request(
                "GET", f"{path}/{volume['type']}/{quote(volume['name'])}/state", query={"project": volume["project"]}
            ).metadata
            volume.update(state.get("usage") or {})


LIST = Command(
    "list",
    "List storage volumes",
    "[<remote>:]<pool> [<filter>...]",
    _list,
    words=(1, None),
    aliases=("ls",),
    options=(
        Option("--all-projects", help="All projects"),
        Option("-c", "--columns", help="Columns: c, d, e, L, n, t, u, U", kind="value"),
        FORMAT,
    ),
    details="\n".join(["Columns:", *(f"  {letter} - {title.lower()}" for letter, (title, _) in COLUMNS.items())]),
    examples=(
        ("storage volume list default type=custom", "List what users have made."),
        ("storage volume list default data", 'List what begins with "data".'),
    ),
    complete=("pool", ""),
)
