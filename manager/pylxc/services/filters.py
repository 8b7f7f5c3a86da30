"""LXD's `?filter=` language: `name eq web and not config.user.stage eq dev`.

Tokens are parted by spaces: `[not] FIELD eq|ne VALUE [and|or ...]`, taken from left to right without precedence. FIELD
is a path with dots into the object as the wire has it; VALUE is a regular expression that ignores case and has to match
the whole value unless it says where itself by `^` or `$`.

See: LXD doc rest-api, "Filtering"
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pylxc.errors import BadRequest

T = TypeVar("T", bound=Mapping[str, Any])


@dataclass(frozen=True, slots=True)
class _Clause:
    joint: str
    negated: bool
    field: str
    pattern: re.Pattern[str]

    def holds(self, item: Mapping[str, Any]) -> bool:
        value = _look_up(item, self.field)
        return value is not None and bool(self.pattern.search(_text(value))) is not self.negated


def select(items: Iterable[T], text: str | None) -> list[T]:
    """Return the items that a filter lets through; no filter lets all through.

    Raises:
        BadRequest: the filter is malformed.
    """
    if not text:
        return list(items)
    clauses = parse(text)
    return [item for item in items if matches(item, clauses)]


def parse(text: str) -> list[_Clause]:
    """Return the clauses of a filter; raises like `select`."""
    try:
        tokens = shlex.split(text)
    except ValueError as error:
        raise BadRequest(f"Invalid filter: {error}") from error
    clauses: list[_Clause] = []
    joint = "and"
    while tokens:
        negated = tokens[0].lower() == "not"
        if negated:
            tokens.pop(0)
        if len(tokens) < 3 or tokens[1].lower() not in ("eq", "ne"):
            raise BadRequest(f"Invalid filter {text!r}", hint="FIELD eq|ne VALUE, joined by and|or, is needed")
        field, operator, value, *tokens = tokens
        clauses.append(_Clause(joint, negated is not (operator.lower() == "ne"), field, _compile(value)))
        if tokens:
            joint = tokens.pop(0).lower()
            if joint not in ("and", "or") or not tokens:
                raise BadRequest(f"Invalid filter {text!r}: clauses are joined by and|or")
    return clauses


def matches(item: Mapping[str, Any], clauses: Iterable[_Clause]) -> bool:
    """Return whether `item` passes, the clauses taken from left to right."""
    result = True
    for clause in clauses:
        held = clause.holds(item)
        result = (result and held) if clause.joint == "and" else (result or held)
    return result


def _compile(value: str) -> re.Pattern[str]:
    expression = value if "^" in value or "$" in value else f"^{value}$"
    try:
        return re.compile(expression, re.IGNORECASE)
    except re.error as error:
        raise BadRequest(f"Invalid filter value {value!r}: {error}") from error


def _look_up(item: object, path: str) -> Any:
    """Return what a dotted path leads to; keys may hold dots themselves (`config.limits.cpu`)."""
    if not isinstance(item, Mapping):
        return None
    if path in item:
        return item[path]
    for end in (i for i, letter in enumerate(path) if letter == "."):
        if path[:end] in item:
            found = _look_up(item[path[:end]], path[end + 1 :])
            if found is not None:
                return found
    return None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
