"""JSON by the interpreter's own C scanner and encoder.

`import json` pulls in `re` and `enum`, which costs a short command half as much again as starting the
interpreter (8 of 13 ms). The C parts are the very ones that `json` uses; where an interpreter lacks them, `json` is
used instead.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"


class _Scanner:
    """The settings that `json.JSONDecoder` hands to the C scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(
        {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__
    )


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


def _build() -> tuple[Callable[[str], Any], Callable[[object], str]]:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    scan = make_scanner(_Scanner())  # type: ignore[arg-type]
    encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)

    def loads(text: str) -> Any:
        text = text.strip(_WHITESPACE)
        try:
            value, end = scan(text, 0)
        except (StopIteration, SystemError, RecursionError):
            # SystemError: the scanner wants to raise an error of `json.decoder`, which nobody has imported.
            raise ValueError("it breaks off or is no JSON") from None
        if end != len(text):
            raise ValueError("text follows the JSON value")
        return value

    def dumps(value: object) -> str:
        return "".join(encode(value, 0))

    if loads(dumps({"a": [1, None, "é"]})) != {"a": [1, None, "é"]}:
        raise ImportError("_json works differently")
    return loads, dumps


try:
    loads, dumps = _build()
except (ImportError, TypeError, AttributeError):
    from json import dumps, loads

__all__ = ["dumps", "loads"]
