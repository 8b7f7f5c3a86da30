"""LXD's `?filter=` language: `name eq web and not config.user.stage eq dev`.

Tokens are parted by spaces, but for those in double quotes: `[not] FIELD eq|ne VALUE [and|or ...]`, taken from left to
right without precedence. FIELD is a path with dots into the object as the wire has it; VALUE is a regular expression
that ignores case and has to match the whole value unless it says where itself by `^` or `$`. What has no such field is
as something of another value.

The expressions are a client's, so they are RE2's, which is Go's language as well: its time is linear in the text's
length, where Python's own can take years with the interpreter's lock held.

See: LXD doc rest-api, "Filtering"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import re2

from pylxc.errors import BadRequest

T = TypeVar("T", bound=Mapping[str, Any])

_TOKEN = re.compile(r'"([^"]*)"(?!\S)|(\S+)')


@dataclass(frozen=True, slots=True)
class _Clause:
    joint: str
    negated: bool
    field: str
    pattern: re2._Regexp

    def holds(self, item: Mapping[str, Any]) -> bool:
        value = _look_up(item, self.field)
        found = value is not None and self.pattern.search(_text(value)) is not None
        return found is not self.negated


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
    tokens = [found[1] if found[1] is not None else found[2] for found in _TOKEN.finditer(text)]
    if any(token.startswith('"') for token in tokens):
        raise BadRequest(f"Invalid filter {text!r}: a quote has no end")
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


def _compile(value: str) -> re2._Regexp:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    try:
        return re2.compile(value if "^" in value or "$" in value else f"^(?:{value})$", options)
    except re2.error as error:
        raise BadRequest(f"Invalid filter value {value!r}: {error.args[0].decode(errors='replace')}") from error


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
