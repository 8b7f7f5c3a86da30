"""Check a decoded JSON body against a TypedDict of this package."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, TypeVar, cast

from pylxc.errors import BadRequest

_NAMES = {str: "a string", int: "an integer", bool: "true or false", float: "a number"}
_INT64 = 2**63  # Go's integers, and SQLite's, end here

T = TypeVar("T")


def check(body: object, wanted: type[T]) -> T:
    """Return what `body` holds of `wanted`'s keys.

    Unknown keys are dropped, because clients send whole GET answers back. `null` counts as an absent key unless the
    type allows None, as Go's decoder has it.

    Args:
        body: what json.loads returned.
        wanted: a TypedDict class.

    Raises:
        BadRequest: a known key has a value of another type; the message names the key.
    """
    return cast(T, _check(body, wanted, ""))


@cache
def _hints(wanted: type) -> dict[str, Any]:
    return typing.get_type_hints(wanted)


def _check(value: object, wanted: Any, where: str) -> object:
    origin = typing.get_origin(wanted)
    if wanted is Any:
        return value
    if typing.is_typeddict(wanted):
        return _check_keys(value, _hints(wanted), where)
    if origin is dict:
        inner = typing.get_args(wanted)[1]
        found = _expect(value, dict, "an object", where)
        for key in found:
            _check_text(key, where)
        return {key: _check(item, inner, _join(where, key)) for key, item in found.items()}
    if origin is list:
        inner = typing.get_args(wanted)[0]
        found_list = _expect(value, list, "a list", where)
        return [_check(item, inner, f"{where}[{index}]") for index, item in enumerate(found_list)]
    if origin in (types.UnionType, typing.Union):
        return _check_union(value, typing.get_args(wanted), where)
    return _check_scalar(value, wanted, where)


def _check_keys(value: object, hints: dict[str, Any], where: str) -> dict[str, object]:
    found = _expect(value, dict, "an object", where)
    return {
        key: _check(found[key], wanted, _join(where, key))
        for key, wanted in hints.items()
        if key in found and (found[key] is not None or _allows_none(wanted))
    }


def _check_union(value: object, choices: tuple[Any, ...], where: str) -> object:
    if value is None and types.NoneType in choices:
        return None
    error: BadRequest | None = None
    for choice in choices:
        if choice is types.NoneType:
            continue
        try:
            return _check(value, choice, where)
        except BadRequest as refused:
            error = error or refused
    raise error or BadRequest(f"Invalid value for {where!r}")


def _check_scalar(value: object, wanted: type, where: str) -> object:
    right = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not right or (isinstance(value, bool) and wanted is not bool):
        raise BadRequest(f"Invalid request: {where or 'the body'!r} must be {_NAMES[wanted]}, not {_kind(value)}")
    if wanted is int and not -_INT64 <= cast(int, value) < _INT64:
        raise BadRequest(f"Invalid request: {where!r} is too large a number")
    if wanted is str:
        _check_text(cast(str, value), where)
    return value


def _check_text(text: str, where: str) -> None:
    if "\0" in text:
        raise BadRequest(f"Invalid request: {where!r} holds a zero byte")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, which is no character
            raise BadRequest(f"Invalid request: {where!r} is no valid text") from None


def _expect(value: object, kind: type[T], name: str, where: str) -> T:
    if not isinstance(value, kind):
        raise BadRequest(f"Invalid request: {repr(where) if where else 'the body'} must be {name}, not {_kind(value)}")
    return value


def _allows_none(wanted: Any) -> bool:
    return wanted is Any or types.NoneType in typing.get_args(wanted)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", types.NoneType: "null"}
    return (kinds | _NAMES).get(type(value), "something else")
