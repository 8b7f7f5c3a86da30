"""Image rows as the wire has them."""

from __future__ import annotations

from collections.abc import Sequence

from pylxc.db.models import Image, ImageAlias
from pylxc.wire import images as wire
from pylxc.wire.times import NEVER_USED, timestamp

_SOURCE_KEYS = ("alias", "certificate", "protocol", "server", "image_type")


def render(image: Image, aliases: Sequence[ImageAlias]) -> wire.Image:
    """Return an image as GET /1.0/images/FINGERPRINT answers it."""
    source = {key: image.source.get(key, "") for key in _SOURCE_KEYS}
    rendered: wire.Image = {
        "auto_update": image.auto_update,
        "properties": dict(image.properties),
        "public": image.public,
        "expires_at": timestamp(image.expires_at, NEVER_USED),
        "profiles": list(image.profiles),
        "aliases": [{"name": alias.name, "description": alias.description} for alias in aliases],
        "architecture": image.architecture,
        "cached": image.cached,
        "filename": image.filename,
        "fingerprint": image.fingerprint,
        "size": image.size,
        "type": image.type,
        "created_at": timestamp(image.created_at, NEVER_USED),
        "last_used_at": timestamp(image.last_used_at, NEVER_USED),
        "uploaded_at": timestamp(image.uploaded_at),
    }
    if source["alias"]:
        rendered["update_source"] = wire.ImageSource(**source)  # type: ignore[typeddict-item]
    return rendered


def render_alias(alias: ImageAlias) -> wire.ImageAliasesEntry:
    """Return an alias as GET /1.0/images/aliases/NAME answers it."""
    return {
        "description": alias.description,
        "target": alias.image.fingerprint,
        "name": alias.name,
        "type": alias.image.type,
    }


def etag_fields(image: wire.Image) -> tuple[object, ...]:
    """Return what an image's ETag is made of."""
    return (image["public"], image["auto_update"], image["properties"])


def alias_etag_fields(alias: wire.ImageAliasesEntry) -> tuple[object, ...]:
    """Return what an alias's ETag is made of."""
    return (alias["name"], alias["description"], alias["target"])
