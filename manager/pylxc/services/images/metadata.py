"""What an image must say about itself to be taken in. See: LXD doc image-handling."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from pylxc.errors import BadRequest
from pylxc.kernel.architecture import architecture_name, host_architectures
from pylxc.services import metadata_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """A checked metadata.yaml. `architecture` is the kernel's name."""

    architecture: str
    created_at: dt.datetime
    expires_at: dt.datetime | None = None
    properties: dict[str, str] = field(default_factory=dict)


def parse(content: bytes) -> ImageMetadata:
    """Check a metadata.yaml.

    Raises:
        BadRequest: it is malformed, lacks what it must have, or is for another kind of machine.
    """
    data = metadata_yaml.parse(content)
    created_at = _moment(data["creation_date"])
    if created_at is None:
        raise BadRequest("Invalid image: its metadata.yaml has no creation_date")
    return ImageMetadata(
        architecture=_architecture(data["architecture"]),
        created_at=created_at,
        expires_at=_moment(data["expiry_date"]),
        properties=data["properties"],
    )


def _architecture(text: str) -> str:
    name = architecture_name(text)
    if name is None:
        raise BadRequest(f"Invalid image: unknown architecture {text[:40]!r}")
    if name not in host_architectures():
        raise BadRequest(f"The image is for {name}, and this host runs {' and '.join(host_architectures())}")
    return name


def _moment(seconds: int) -> dt.datetime | None:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds > 0 else None
    except (ValueError, OverflowError, OSError) as error:
        raise BadRequest("Invalid image: a date in its metadata.yaml is too far away") from error
