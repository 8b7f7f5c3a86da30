"""metadata.yaml, read as it is written: of images, of instances and of backups. See: LXD doc image-handling."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pylxc.errors import BadRequest
from pylxc.wire.instances import InstanceMetadata, InstanceTemplate

MAX_BYTES = 1 << 20
"""Of a metadata.yaml and of a template, at most; real ones have a few kilobytes."""

_MAX_ITEMS = 100_000


class _Loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """Reads every scalar as its text: 22.10 is no number, yes no truth value. What is null is empty."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("~|null|Null|NULL"), ["~", "n", "N"])
_Loader.add_constructor("tag:yaml.org,2002:null", lambda _loader, _node: "")


def parse(content: bytes) -> InstanceMetadata:
    """Return what a metadata.yaml says (JSON is YAML too); it may lack anything.

    Raises:
        BadRequest: it is malformed or too large.
    """
    if len(content) > MAX_BYTES:
        raise BadRequest("Invalid metadata.yaml: it is too large")
    try:
        data = yaml.load(content, Loader=_Loader)  # noqa: S506 - it makes nothing but texts, lists and maps
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"Invalid metadata.yaml: it is no YAML: {str(error).splitlines()[0][:200]}") from None
    data = _map(data or {}, "it")
    templates = {path: _map(item, path) for path, item in _map(data.get("templates") or {}, "templates").items()}
    # With YAML's aliases a small file can say the same thing without end.
    if sum(len(item.get(key) or ()) for item in templates.values() for key in ("when", "properties")) > _MAX_ITEMS:
        raise BadRequest("Invalid metadata.yaml: it is too large")
    return {
        "architecture": _text(data.get("architecture", ""), "architecture"),
        "creation_date": _moment(data, "creation_date"),
        "expiry_date": _moment(data, "expiry_date"),
        "properties": _texts(data.get("properties") or {}, "properties"),
        "templates": {path: _template(path, item) for path, item in templates.items()},
    }


def _template(path: str, item: dict[str, Any]) -> InstanceTemplate:
    when = item.get("when") or []
    if not isinstance(when, list):
        raise BadRequest(f"Invalid metadata.yaml: 'when' of {path!r} is no list")
    return {
        "when": [_text(word, f"'when' of {path!r}") for word in when],
        "create_only": str(item.get("create_only", "")).lower() in ("true", "yes", "on", "y"),
        "template": _text(item.get("template", ""), f"'template' of {path!r}"),
        "properties": _texts(item.get("properties") or {}, f"'properties' of {path!r}"),
    }


def _map(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadRequest(f"Invalid metadata.yaml: {what} is no map")
    return value


def _texts(value: object, what: str) -> dict[str, str]:
    return {key: _text(item, what) for key, item in _map(value, what).items()}


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"Invalid metadata.yaml: {what} has something other than text")
    return value


def _moment(data: dict[str, Any], key: str) -> int:
    text = data.get(key) or "0"
    try:
        return int(float(text))
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(f"Invalid metadata.yaml: {key} is no Unix time") from None
