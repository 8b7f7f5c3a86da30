"""Sending an image to another LXD server, which has issued a token for it.

See: LXD doc rest-api, images; `images_push_relay` in its doc api-extensions
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from pylxc.drivers.image.base import Cancelled, Progress, other_project
from pylxc.drivers.image.proxies import Setting
from pylxc.drivers.image.web import Web, check_url, pinned
from pylxc.errors import BadRequest, Internal
from pylxc.meter import Meter
from pylxc.wire import multipart

_CHUNK = 1 << 18
_WAIT_SECONDS = 10
"""Of one question whether the server has taken the image in; less than a server may be silent."""
_PAUSE_SECONDS = 0.5
"""Between two of them: a server need not wait before it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server that waits for an image.

    Attributes:
        url: https.
        certificate: its own, in PEM; "" trusts what the system trusts.
        secret: of the token that it has issued.
        project: there.
    """

    url: str
    certificate: str
    secret: str
    project: str = ""

    def check(self) -> None:
        """Refuse a target that cannot be one.

        Raises:
            BadRequest: it is no https URL, or there is no secret.
        """
        check_url(self.url)
        if self.certificate:
            pinned(self.certificate)
        if not self.secret or not self.secret.isalnum() or not self.secret.isascii():
            raise BadRequest("An image is sent with the secret of a token that the other server has issued")


def push(
    target: Target,
    fingerprint: str,
    files: Sequence[multipart.FilePart],
    setting: Setting,
    progress: Progress,
    check_cancelled: Cancelled,
) -> None:
    """Send an image and return when the other server has taken it in.

    Raises:
        Internal: the server cannot be reached or trusted, or does not take it.
        PylxcError: what `check_cancelled` raises.
    """
    with ExitStack() as stack:
        opened = [(file, stack.enter_context(open(file.path, "rb", buffering=0))) for file in files]
        sizes = [stream.seek(0, 2) for _, stream in opened]
        boundary = multipart.boundary()
        is_split = len(files) > 1
        frames = multipart.frames(boundary, files) if is_split else [b"", b""]
        length = sum(sizes) + sum(len(frame) for frame in frames)
        headers = {
            "Content-Type": multipart.content_type(boundary) if is_split else "application/octet-stream",
            "Content-Length": str(length),
            "X-LXD-fingerprint": fingerprint,
            "X-LXD-secret": target.secret,
            "X-LXD-filename": quote(files[0].filename),
        }
        meter = Meter(progress, "image", length)
        web = stack.enter_context(Web(setting, check_cancelled, target.certificate))
        content = _body([stream for _, stream in opened], frames, meter)
        answer = web.send(f"{target.url.rstrip('/')}/1.0/images{_query(target)}", headers, content).content or b""
        _wait(web, target, answer, check_cancelled)


def _query(target: Target) -> str:
    project = other_project({"project": target.project})
    return f"?{urlencode({'project': project})}" if project else ""


def _body(streams: Sequence[BinaryIO], frames: Sequence[bytes], meter: Meter) -> Iterator[bytes]:
    for stream, frame in zip(streams, frames, strict=False):
        yield frame
        stream.seek(0)
        while chunk := stream.read(_CHUNK):
            yield chunk
            meter.add(len(chunk))
    yield frames[-1]


def _wait(web: Web, target: Target, answer: bytes, check_cancelled: Cancelled) -> None:
    """Wait until the operation that an upload has begun is over."""
    try:
        begun: dict[str, Any] = json.loads(answer)["metadata"]
        operation, secret = str(begun["id"]), str((begun.get("metadata") or {}).get("secret", ""))
        query = urlencode({"secret": secret, "timeout": _WAIT_SECONDS})
        url = f"{target.url.rstrip('/')}/1.0/operations/{quote(operation, safe='')}/wait?{query}"
        found = begun
        while int(found["status_code"]) < 200:
            check_cancelled()
            if found is not begun:
                time.sleep(_PAUSE_SECONDS)
            found = json.loads(web.document(url).content or b"")["metadata"]
        text = "".join(c for c in str(found.get("err") or found.get("status")) if c.isprintable())[:200]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise Internal(f"{target.url} does not answer as LXD does") from error
    if found["status_code"] != 200:
        raise Internal(f"The other server cannot take the image: {text}")
