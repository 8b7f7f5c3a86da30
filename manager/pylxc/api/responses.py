"""Answers: what a handler returns, and the envelope that it becomes on the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from pylxc.services.operations import Operation

_MAPS = frozenset({"config", "devices", "expanded_config", "expanded_devices", "properties"})
"""What users and the system put keys of their own in."""


@dataclass(frozen=True, slots=True)
class Sync:
    """200 with `metadata`; `etag` is from `services.etag`."""

    metadata: Any = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """200 with metadata that is JSON text already: long lists are not decoded to be encoded again."""

    metadata: bytes


@dataclass(frozen=True, slots=True)
class Created:
    """201: something was made at once; `location` is its URL."""

    location: str


@dataclass(frozen=True, slots=True)
class Async:
    """202: an operation has begun."""

    operation: Operation


Answer = Sync | Encoded | Created | Async | web.StreamResponse


def render(answer: Answer) -> web.StreamResponse:
    """Return the HTTP response of an answer."""
    if isinstance(answer, web.StreamResponse):
        return answer
    if isinstance(answer, Async):
        headers = {"Location": _location(answer.operation)}
        return web.Response(status=202, body=begun(answer.operation), content_type="application/json", headers=headers)
    if isinstance(answer, Created):
        return _json(201, _envelope("sync", "Success", 200, "", None), {"Location": answer.location})
    if isinstance(answer, Encoded):
        head = json.dumps(_envelope("sync", "Success", 200, "", None)).encode().removesuffix(b"null}")
        return web.Response(body=head + answer.metadata + b"}\n", content_type="application/json")
    metadata = {} if answer.metadata is None else _sorted_maps(answer.metadata)
    headers = {"ETag": f'"{answer.etag}"'} if answer.etag else {}
    return _json(200, _envelope("sync", "Success", 200, "", metadata), headers)


def preferred(operation: Operation, seconds: int) -> web.StreamResponse:
    """Return the head of an answer whose body, `begun`, follows when the operation has ended (RFC 7240)."""
    headers = {"Location": _location(operation), "Preference-Applied": f"wait={seconds}"}
    response = web.StreamResponse(status=202, headers=headers)
    response.content_type = "application/json"
    return response


def begun(operation: Operation) -> bytes:
    """Return the body of an answer that hands over an operation, as it is now."""
    return _encode(_envelope("async", "Operation created", 100, _location(operation), operation.tell()))


def _location(operation: Operation) -> str:
    return f"/1.0/operations/{operation.id}"


def error(status: int, message: str) -> web.Response:
    """Return an error's HTTP response; `message` is one line for the user."""
    return web.Response(status=status, body=broken(status, message), content_type="application/json")


def broken(status: int, message: str) -> bytes:
    """Return an error's body."""
    return _encode(_envelope("error", "", 0, "", None) | {"error_code": status, "error": message})


def _envelope(kind: str, status: str, code: int, operation: str, metadata: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "status_code": code,
        "operation": operation,
        "error_code": 0,
        "error": "",
        "metadata": metadata,
    }


def _sorted_maps(data: Any) -> Any:
    """Return an entity, or a list of them, with its maps sorted by key, as Go writes them."""
    if isinstance(data, list):
        return [_sorted_maps(item) for item in data]
    if not isinstance(data, dict):
        return data
    return {key: _sorted(value) if key in _MAPS else value for key, value in data.items()}


def _sorted(data: Any) -> Any:
    return {key: _sorted(data[key]) for key in sorted(data)} if isinstance(data, dict) else data


def _json(status: int, envelope: dict[str, Any], headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=_encode(envelope), content_type="application/json", headers=headers)


def _encode(envelope: dict[str, Any]) -> bytes:
    return json.dumps(envelope).encode() + b"\n"
