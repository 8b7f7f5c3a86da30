"""Lists as table, compact, csv, json or yaml; times and sizes as `lxc` prints them."""

from __future__ import annotations

import sys
from itertools import groupby, zip_longest

from pylxc.client import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

_LEAST_WIDTH = 4
_MANY = 500
"""Texts to be sorted from which on `re` is worth its import."""
_CONTROLS = {code: "?" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def plain(text: str) -> str:
    """Return a text without what would steer a terminal: names, descriptions and errors are a server's or a guest's."""
    return text.translate(_CONTROLS)


def one_line(error: BaseException) -> str:
    """Return an error as it is shown."""
    return plain(" ".join(str(error).split()))


def show(form: str, header: Sequence[str], rows: Iterable[Sequence[str]], data: object) -> None:
    """Print a list.

    Args:
        form: table, compact, csv, json or yaml.
        header: the columns' titles.
        rows: a text per column; a line break in it is one in the cell.
        data: the objects behind the rows, for json and yaml.
    """
    if form == "json":
        print(codec.dumps(data))
    elif form == "yaml":
        from pylxc.cli import yamltext

        sys.stdout.write(yamltext.dump(data))
    else:
        lines = {"table": table, "compact": _compact, "csv": _csv}[form](header, [list(row) for row in rows])
        text = "".join(f"{line}\n" for line in lines)
        sys.stdout.write(text if form == "csv" and not sys.stdout.isatty() else plain(text))


def _csv(_header: Sequence[str], rows: list[list[str]]) -> Iterable[str]:
    for row in rows:
        yield ",".join(
            '"' + cell.replace('"', '""') + '"' if any(char in cell for char in ',"\n\r') or cell[:1] == " " else cell
            for cell in row
        )


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _widths(header: Sequence[str], rows: list[list[list[str]]]) -> list[int]:
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    widths = []
    for title, column in zip(header, columns, strict=True):
        texts = [title, *(line for lines in column for line in lines)]
        widths.append(max(map(len if "".join(texts).isascii() else _width, texts)))
    return widths


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _centre(text: str, width: int) -> str:
    gap = width - _width(text)
    return " " * (gap // 2) + text + " " * (gap - gap // 2)


def table(header: Sequence[str], rows: list[list[str]]) -> Iterable[str]:
    """Return the lines of a table with a frame."""
    cells = [[cell.split("\n") for cell in row] for row in rows]
    widths = _widths(header, cells)
    if sys.stdout.isatty():
        cells, widths = _fit(cells, widths)
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    yield rule
    titles = [_wrap([title], width) for title, width in zip(header, widths, strict=True)]
    for line in range(max(len(title) for title in titles)):
        parts = [title[line] if line < len(title) else "" for title in titles]
        yield "| " + " | ".join(_centre(part, width) for part, width in zip(parts, widths, strict=True)) + " |"
    yield rule
    for lines in _padded(cells, widths, " | "):
        yield from (f"| {line} |" for line in lines)
        yield rule


def _compact(header: Sequence[str], rows: list[list[str]]) -> Iterable[str]:
    cells = [[cell.split("\n") for cell in row] for row in rows]
    widths = _widths(header, cells)
    yield "  " + "  ".join(_centre(title, width) for title, width in zip(header, widths, strict=True)) + "  "
    for lines in _padded(cells, widths, "  "):
        yield from (f"  {line}  " for line in lines)


def _padded(cells: list[list[list[str]]], widths: list[int], joint: str) -> Iterable[list[str]]:
    """Yield each row's lines, the columns padded."""
    form = joint.join(f"%-{width}s" for width in widths)
    for row in cells:
        yield [
            form % parts if "".join(parts).isascii() else joint.join(map(_pad, parts, widths))
            for parts in zip_longest(*row, fillvalue="")
        ]


def _fit(cells: list[list[list[str]]], widths: list[int]) -> tuple[list[list[list[str]]], list[int]]:
    """Wrap the widest columns until the table fits the terminal."""
    from pylxc.client import terminal

    columns, _ = terminal.size(1)
    room = columns - 3 * len(widths) - 1
    if columns == 0 or sum(widths) <= room:
        return cells, widths
    widths = list(widths)
    while sum(widths) > room:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= _LEAST_WIDTH:
            break
        widths[widest] -= 1
    return [[_wrap(lines, width) for lines, width in zip(row, widths, strict=True)] for row in cells], widths


def _wrap(lines: list[str], width: int) -> list[str]:
    wrapped = []
    for line in lines:
        rest = line
        while _width(rest) > width:
            cut = rest.rfind(" ", 1, width + 1)
            cut = cut if cut > 0 else width
            wrapped.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
        wrapped.append(rest)
    return wrapped


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a sort key by which c2 comes before c10."""
    parts = ["".join(chars) for _, chars in groupby(text, str.isdecimal)]
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _natural_of_many() -> Callable[[str], list[tuple[bool, int, str]]]:
    """Return what does as `natural` does in a fourth of its time, once `re` is there, whose import takes long."""
    import re

    split = re.compile(r"(\d+)").split

    def key(text: str) -> list[tuple[bool, int, str]]:
        parts = split(text)
        return [(False, int(part), part) if at % 2 else (True, 0, part) for at, part in enumerate(parts) if part]

    return key


def sort_rows(rows: list[list[str]], column: int = 0) -> list[list[str]]:
    """Return the rows sorted by their column `column`, then the next, numbers in the texts by value."""
    # Lists are long, and their first column mostly tells rows apart: the others are looked at where it does not.
    alike: dict[str, list[list[str]]] = {}
    for row in rows:
        alike.setdefault(row[column], []).append(row)
    found = []
    for text in sorted(alike, key=natural if len(alike) < _MANY else _natural_of_many()):
        group = alike[text]
        done = len(group) == 1 or column + 1 == len(group[0])
        found += group if done else sort_rows(group, column + 1)
    return found


def parse_time(text: str) -> Any:
    """Return the time that an RFC 3339 text names, as an aware datetime in the local zone; None for "never"."""
    from datetime import UTC, datetime

    if not text or text.startswith(("0001-01-01", "1970-01-01T00:00:00Z")):
        return None
    main, zone = (text[:-1], "+00:00") if text.endswith("Z") else (text[:-6], text[-6:])
    whole, _, fraction = main.partition(".")
    stamp = datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}{zone}")
    return None if stamp <= datetime.fromtimestamp(0, UTC) else stamp.astimezone()


def format_time(text: str, never: str = "") -> str:
    """Return an RFC 3339 time as `2026/11/21 03:10 UTC` in the local zone, `never` when it is none."""
    stamp = parse_time(text)
    return f"{stamp:%Y/%m/%d %H:%M %Z}" if stamp else never


def long_time(text: str) -> str:
    """Return an RFC 3339 time as `Nov 21, 2026 at 3:10am (UTC)` in the local zone, "" when it is none."""
    stamp = parse_time(text)
    if stamp is None:
        return ""
    hour = stamp.hour % 12 or 12
    return f"{stamp:%b} {stamp.day}, {stamp.year} at {hour}:{stamp:%M}{'am' if stamp.hour < 12 else 'pm'} ({stamp:%Z})"


def yes(value: object) -> str:
    """Return YES or NO."""
    return "YES" if value else "NO"
