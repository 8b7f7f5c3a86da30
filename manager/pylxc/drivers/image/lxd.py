"""Images of other LXD servers: the public ones, and one that a secret opens.

See: LXD doc rest-api, images
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pylxc.drivers.image.base import (
    Area,
    Cancelled,
    Host,
    Offer,
    Progress,
    is_fingerprint,
    other_project,
    refuse_foreign,
    wire_image,
)
from pylxc.drivers.image.download import Piece, resumed
from pylxc.drivers.image.multipart import boundary_of, parts
from pylxc.drivers.image.web import Web, body, check_url
from pylxc.errors import BadRequest, Internal, NotFound
from pylxc.kernel.architecture import architecture_name
from pylxc.meter import Meter
from pylxc.wire import images as wire
from pylxc.wire.times import NEVER, parse_timestamp, timestamp

_PARTS = ("metadata", "rootfs")


class LxdDriver:
    """Fetches images from LXD servers, and from what speaks like one. See `ImageDriver`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def find(self, source: Mapping[str, str], check_cancelled: Cancelled, *, fresh: bool) -> Offer:
        """Return what the server has for an alias, or for the beginning of a fingerprint; see `ImageDriver`."""
        server, certificate = _server(source), source.get("certificate") or ""
        wanted = source.get("alias") or source.get("fingerprint") or ""
        if not wanted:
            raise BadRequest("An image is asked for by its alias or fingerprint")
        with Web(self._host.setting, check_cancelled, certificate) as web:
            alias, fingerprint = _resolved(web, server, wanted, source)
            try:
                image = _image(_ask(web, server, f"/1.0/images/{quote(fingerprint, safe='')}", source))
            except NotFound:
                raise NotFound(f"{urlsplit(server).netloc} has no public image {wanted[:100]!r}") from None
        if image is None:
            raise BadRequest(f"The image {wanted[:100]!r} is none of a container")
        refuse_foreign(image, wanted)
        kept = {"protocol": "lxd", "server": server, "certificate": certificate, "alias": alias}
        kept["project"] = other_project(source)
        return Offer(
            source={key: value for key, value in kept.items() if value},
            version=image["fingerprint"],
            image=image,
            described=True,
            hidden=_target(f"/1.0/images/{image['fingerprint']}/export", source),
        )

    def listing(self, source: Mapping[str, str]) -> bytes:
        """Return the server's public images; see `ImageDriver`."""
        server = _server(source)
        with Web(self._host.setting, lambda: None, source.get("certificate") or "") as web:
            found = _ask(web, server, "/1.0/images", {**source, "recursion": "1"})
        if not isinstance(found, list):
            raise Internal(f"{urlsplit(server).netloc} does not list images as LXD does")
        return json.dumps([image for item in found if (image := _image(item))]).encode()

    def fetch(self, offer: Offer, area: Area, progress: Progress, check_cancelled: Cancelled) -> None:
        """Download the image's files; see `ImageDriver`."""
        url = f"{offer.source['server']}{offer.hidden}"
        begun, size, received = "", offer.image["size"], 0
        meter = Meter(progress, "rootfs", size)
        with Web(self._host.setting, check_cancelled, offer.source.get("certificate", "")) as web:
            for part, chunk in resumed(web, lambda _offset: _attempt(web, url)):
                if part != begun:
                    begun = part
                    area.begin(part)
                received += len(chunk)
                if received > size:
                    raise Internal(f"{url} is longer than the {size} bytes that it should have")
                area.write(chunk)
                meter.add(len(chunk))


def _attempt(web: Web, url: str) -> Iterator[Piece]:
    """Yield an export from its beginning: bodies of several parts are made anew each time, and cannot be resumed."""
    position = 0
    with web.open("GET", url, {}) as response:
        boundary = boundary_of(response.headers.get("Content-Type", ""))
        chunks = body(response, url)
        whole = (("metadata", chunk) for chunk in chunks)
        for part, chunk in parts(chunks, boundary) if boundary else whole:
            if part not in _PARTS:
                raise Internal(f"{url} has an unexpected part {part[:40]!r}; only container images can be used")
            yield position, part, chunk
            position += len(chunk)


def _resolved(web: Web, server: str, wanted: str, source: Mapping[str, str]) -> tuple[str, str]:
    """Return the alias ("" for none) and the fingerprint that a word stands for: `lxc` sends both as fingerprints."""
    if is_fingerprint(wanted) or source.get("secret"):
        return "", wanted
    try:
        found = _ask(web, server, f"/1.0/images/aliases/{quote(wanted, safe='')}", source)
    except NotFound:
        return "", wanted
    if not isinstance(found, dict) or not is_fingerprint(found.get("target")):
        raise Internal(f"{urlsplit(server).netloc} does not answer as LXD does")
    return wanted, found["target"]


def _server(source: Mapping[str, str]) -> str:
    server = (source.get("server") or "").rstrip("/")
    check_url(server)
    return server


def _target(path: str, source: Mapping[str, str]) -> str:
    query = urlencode({key: source[key] for key in ("project", "recursion", "secret") if source.get(key)})
    return f"{path}?{query}" if query else path


def _ask(web: Web, server: str, path: str, source: Mapping[str, str]) -> Any:
    url = f"{server}{_target(path, source)}"
    try:
        return json.loads(web.document(url).content or b"")["metadata"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise Internal(f"{urlsplit(server).netloc} does not answer as LXD does") from error


def _image(found: Any) -> wire.Image | None:
    """Return an image that a server tells of, None for one that is none of a container.

    Raises:
        Internal: what it tells makes no sense.
    """
    try:
        if (found.get("type") or "container") != "container":
            return None
        if not is_fingerprint(found["fingerprint"]):
            raise ValueError("no fingerprint")
        properties = {str(key): str(value) for key, value in (found["properties"] or {}).items()}
        aliases = [str(alias["name"]) for alias in found.get("aliases") or []]
        return wire_image(
            aliases=[{"name": name, "description": ""} for name in aliases if name.isprintable()],
            architecture=architecture_name(str(found["architecture"])) or "",
            created_at=_moment(found["created_at"]),
            expires_at=_moment(found["expires_at"]),
            filename=os.path.basename(str(found["filename"])),
            fingerprint=found["fingerprint"],
            properties={k: v for k, v in properties.items() if f"{k}{v}".isprintable()},
            size=int(found["size"]),
            uploaded_at=_moment(found["uploaded_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Internal("The server describes an image in a way that makes no sense") from error


def _moment(text: str) -> str:
    moment = parse_timestamp(text)
    return timestamp(moment if moment and moment.timestamp() > 0 else None, NEVER)
