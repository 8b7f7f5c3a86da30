"""`pylxc list`."""

from __future__ import annotations

from pylxc.cli.grammar import FORMAT, Args, Command, Option, UsageError
from pylxc.cli.output import format_time, show, sort_rows
from pylxc.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session

    Cell = Callable[[dict[str, Any]], str]

DEFAULT_COLUMNS = "ns46tS"
FAST_COLUMNS = "nsacPt"


def _addresses(instance: dict[str, Any], family: str) -> str:
    found = []
    for name, interface in ((instance.get("state") or {}).get("network") or {}).items():
        if interface.get("type") == "loopback":
            continue
        found += [
            f"{address['address']} ({name})"
            for address in interface.get("addresses") or []
            if address["family"] == family and address["scope"] not in {"link", "local"}
        ]
    return "\n".join(sorted(found, reverse=True))


def _state(instance: dict[str, Any], *keys: str) -> Any:
    value: Any = instance.get("state") or {}
    for key in keys:
        value = (value or {}).get(key)
    return value


def _root_disk(instance: dict[str, Any]) -> tuple[str, dict[str, str]]:
    for name, device in (instance.get("expanded_devices") or {}).items():
        if device.get("type") == "disk" and device.get("path") == "/":
            return name, device
    return "", {}


def _disk_usage(instance: dict[str, Any]) -> str:
    usage = _state(instance, "disk", _root_disk(instance)[0], "usage") or 0
    return binary_size(usage) if usage > 0 else ""


def _memory_usage(instance: dict[str, Any]) -> str:
    usage = _state(instance, "memory", "usage") or 0
    return binary_size(usage) if usage > 0 else ""


def _cpu_usage(instance: dict[str, Any]) -> str:
    usage = _state(instance, "cpu", "usage") or 0
    return f"{usage // 10**9}s" if usage > 0 else ""


def _memory_percent(instance: dict[str, Any]) -> str:
    usage, total = _state(instance, "memory", "usage") or 0, _state(instance, "memory", "total") or 0
    return f"{100 * usage / total:.1f}%" if usage and total else ""


def _kind(instance: dict[str, Any]) -> str:
    kind = str(instance.get("type") or "container").upper()
    return f"{kind} (EPHEMERAL)" if instance.get("ephemeral") else kind


def _active(instance: dict[str, Any], value: object) -> str:
    return str(value) if value and instance.get("status") in {"Running", "Frozen"} else ""


def _config(instance: dict[str, Any], key: str) -> str:
    return str((instance.get("expanded_config") or {}).get(key, ""))


# Letter: title, text, whether the instance's state or snapshots are needed for it.
COLUMNS: dict[str, tuple[str, Cell, bool]] = {
    "4": ("IPV4", lambda i: _addresses(i, "inet"), True),
    "6": ("IPV6", lambda i: _addresses(i, "inet6"), True),
    "a": ("ARCHITECTURE", lambda i: str(i["architecture"]), False),
    "b": ("STORAGE POOL", lambda i: _root_disk(i)[1].get("pool", ""), False),
    "c": ("CREATED AT", lambda i: format_time(i["created_at"]), False),
    "d": ("DESCRIPTION", lambda i: str(i.get("description", "")), False),
    "D": ("DISK USAGE", _disk_usage, True),
    "e": ("PROJECT", lambda i: str(i.get("project", "default")), False),
    "f": ("BASE IMAGE", lambda i: _config(i, "volatile.base_image")[:12], False),
    "F": ("BASE IMAGE", lambda i: _config(i, "volatile.base_image"), False),
    "l": ("LAST USED AT", lambda i: format_time(i["last_used_at"]), False),
    "L": ("LOCATION", lambda i: str(i.get("location", "")), False),
    "m": ("MEMORY USAGE", _memory_usage, True),
    "M": ("MEMORY USAGE%", _memory_percent, True),
    "n": ("NAME", lambda i: str(i["name"]), False),
    "N": ("PROCESSES", lambda i: _active(i, _state(i, "processes")), True),
    "p": ("PID", lambda i: _active(i, _state(i, "pid")), True),
    "P": ("PROFILES", lambda i: "\n".join(i.get("profiles") or []), False),
    "s": ("STATE", lambda i: str(i["status"]).upper(), False),
    "S": ("SNAPSHOTS", lambda i: str(len(i.get("snapshots") or [])), True),
    "t": ("TYPE", _kind, False),
    "u": ("CPU USAGE", _cpu_usage, True),
}


def parse_columns(text: str, command: Command) -> list[tuple[str, Cell, bool]]:
    """Return (title, text, needs state) for every column that `text` names.

    `text` is letters and, between commas, keys: `[config:|devices:]key[:title][:width]`.

    Raises:
        UsageError: a letter or a key is wrong.
    """
    columns = []
    for entry in text.split(","):
        if not entry:
            raise UsageError(f"Empty column entry (redundant, leading or trailing comma) in {text!r}", command)
        if "." in entry or ":" in entry:
            columns.append(_key_column(entry, command))
            continue
        for letter in entry:
            if letter not in COLUMNS:
                raise UsageError(f"Unknown column shorthand char {letter!r} in {text!r}", command)
            columns.append(COLUMNS[letter])
    return columns


def _key_column(entry: str, command: Command) -> tuple[str, Cell, bool]:
    scope, _, rest = entry.partition(":")
    if scope not in {"config", "devices"}:
        scope, rest = "config", entry
    key, *more = rest.split(":")
    title = more[0] if more and more[0] else key
    width = -1
    if len(more) > 1:
        try:
            width = int(more[1])
        except ValueError:
            raise UsageError(f"Invalid max width {more[1]!r} in {entry!r}", command) from None
    if len(more) > 2 or width < -1 or (scope == "devices" and key.count(".") != 1):
        raise UsageError(f"Invalid column {entry!r}", command)
    if width == 0:
        width = len(title)

    def cell(instance: dict[str, Any]) -> str:
        if scope == "config":
            value = _config(instance, key)
        else:
            device, _, option = key.partition(".")
            value = str(((instance.get("expanded_devices") or {}).get(device) or {}).get(option, ""))
        return value if width < 0 else value[:width]

    return title.upper(), cell, False


def _run(session: Session, args: Args) -> None:
    words = list(args.words)
    if words and words[0].endswith(":"):
        session.name(words.pop(0))
    elif words and ":" in words[0].split("=")[0]:
        words[0] = session.name(words[0])
    else:
        session.name("")
    letters = args.columns or (FAST_COLUMNS if args.fast else DEFAULT_COLUMNS)
    if args.all_projects and not args.columns:
        letters = "e" + letters
    columns = parse_columns(letters, COMMANDS[0])
    full = (
        any(needs for _, _, needs in columns) or args.format in {"json", "yaml"} or any("ipv" in word for word in words)
    )
    instances = session.client.instances.list(full=full, all_projects=args.all_projects)
    if not instances:
        session.check_project()
    if words:
        from pylxc.cli.list_filter import matches

        instances = [instance for instance in instances if matches(instance, words)]
    if args.format == "yaml":
        for instance in instances:
            if (instance.get("state") or {"network": {}})["network"] is None:
                instance["state"]["network"] = {}  # as lxc, which has null in JSON alone
    rows = sort_rows([[cell(instance) for _, cell, _ in columns] for instance in instances])
    show(args.format, [title for title, _, _ in columns], rows, instances)


COMMANDS = (
    Command(
        "list",
        "List instances",
        "[<remote>:] [<filter>...]",
        _run,
        words=(0, None),
        aliases=("ls",),
        options=(
            Option("--all-projects", help="Display instances from all projects"),
            Option("-c", "--columns", help='Columns (default "ns46tS")', kind="value"),
            Option("--fast", help='Fast mode (same as --columns="nsacPt")'),
            FORMAT,
        ),
        details="""
A filter is the beginning of a name, a regular expression on the name, KEY=VALUE for a configuration key (the key may
be shortened: u.x for user.x; the value may be a regular expression), or one of
type= status= architecture= location= ipv4= ipv6= with values separated by commas. All filters must match.

Columns are letters and, between commas, keys as [config:|devices:]KEY[:TITLE][:MAXWIDTH]:
  4 IPv4 address       6 IPv6 address         a Architecture         b Storage pool
  c Creation date      d Description          D Disk usage           e Project
  f Base image, short  F Base image           l Last used date       L Location
  m Memory usage       M Memory usage (%)     n Name                 N Number of processes
  p PID of the init    P Profiles             s State                S Number of snapshots
  t Type               u CPU usage (seconds)
""",
        examples=(
            ("list -c ns,user.comment:comment", "Show names, states and the comment that user.comment holds."),
            ("list status=running -f json", "Show all that is known of the running instances."),
        ),
        complete=("instance",),
    ),
)
