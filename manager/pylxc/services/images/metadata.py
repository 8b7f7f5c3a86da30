"""metadata.yaml: what an image says about itself. See: LXD doc image-handling."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import yaml

from pylxc.errors import BadRequest
from pylxc.kernel.architecture import architecture_name, host_architectures

MAX_BYTES = 1 << 20
"""Of a metadata.yaml, at most; real ones have a few kilobytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """A checked metadata.yaml. `architecture` is the kernel's name; `templates` are kept as they came."""

    architecture: str
    created_at: dt.datetime
    expires_at: dt.datetime | None = None
    properties: dict[str, str] = field(default_factory=dict)
    templates: dict[str, dict[str, Any]] = field(default_factory=dict)


def parse(content: bytes) -> ImageMetadata:
    """Check a metadata.yaml (JSON is YAML too).

    Raises:
        BadRequest: it is no YAML map, lacks what it must have, or is for another kind of machine.
    """
    if len(content) > MAX_BYTES:
        raise BadRequest("Invalid image: its metadata.yaml is too large")
    try:
        data = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"Invalid image: its metadata.yaml is no YAML: {_first_line(error)}") from error
    if not isinstance(data, dict):
        raise BadRequest("Invalid image: its metadata.yaml is no map")
    created_at = _moment(data, "creation_date")
    if created_at is None:
        raise BadRequest("Invalid image: its metadata.yaml has no creation_date")
    return ImageMetadata(
        architecture=_architecture(data.get("architecture")),
        created_at=created_at,
        expires_at=_moment(data, "expiry_date"),
        properties=_properties(data.get("properties")),
        templates=_templates(data.get("templates")),
    )


def _architecture(value: object) -> str:
    name = architecture_name(str(value)) if value else None
    if name is None:
        raise BadRequest(f"Invalid image: unknown architecture {str(value or '')[:40]!r}")
    if name not in host_architectures():
        raise BadRequest(f"The image is for {name}, and this host runs {' and '.join(host_architectures())}")
    return name


def _moment(data: dict[Any, Any], key: str) -> dt.datetime | None:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        raise BadRequest(f"Invalid image: {key} must be a Unix time")
    try:
        seconds = float(value or 0)
        return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds > 0 else None
    except (ValueError, OverflowError, OSError) as error:
        raise BadRequest(f"Invalid image: {key} must be a Unix time") from error


def _properties(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("Invalid image: properties must be a map")
    return {str(key): _text(item) for key, item in value.items()}


def _text(value: object) -> str:
    if isinstance(value, dict | list):  # YAML anchors could make such a value's text grow without end
        raise BadRequest("Invalid image: properties must be texts")
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _templates(value: object) -> dict[str, dict[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise BadRequest("Invalid image: templates must be a map of maps")
    return {str(key): item for key, item in value.items()}


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
