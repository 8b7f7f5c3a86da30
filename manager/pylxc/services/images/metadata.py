"""metadata.yaml: what an image says about itself. See: LXD doc image-handling."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass, field
from typing import Any

import yaml

from pylxc.errors import BadRequest

MAX_BYTES = 1 << 20
"""Of a metadata.yaml, at most; real ones have a few kilobytes."""

_ARCHITECTURES = {
    "i686": ("i386", "i586", "x86"),
    "x86_64": ("amd64", "x86-64"),
    "armv7l": ("armhf", "arm", "armel", "armv7", "armv7a", "armv6l", "armv8l"),
    "aarch64": ("arm64",),
    "ppc": ("powerpc",),
    "ppc64": ("powerpc64",),
    "ppc64le": ("ppc64el",),
    "s390x": (),
    "mips": ("mipsel",),
    "mips64": ("mips64el", "mips64le"),
    "riscv32": (),
    "riscv64": (),
}
"""The kernel's name of each architecture, and the other names that images use for it."""

_PERSONALITIES = {"x86_64": ("i686",), "aarch64": ("armv7l",), "ppc64": ("ppc",), "riscv64": ("riscv32",)}


def architecture_name(text: str) -> str | None:
    """Return the kernel's name of an architecture (amd64 is x86_64), None when there is no such one."""
    for name, others in _ARCHITECTURES.items():
        if text == name or text in others:
            return name
    return None


def host_architectures() -> tuple[str, ...]:
    """Return what the host runs, its own first: a 64-bit kernel runs its 32-bit sibling's programs too."""
    own = architecture_name(os.uname().machine) or os.uname().machine
    return (own, *_PERSONALITIES.get(own, ()))


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
