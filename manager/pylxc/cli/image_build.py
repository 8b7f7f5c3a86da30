"""`pylxc image build`: an image by a recipe of the caller's, from a file, stdin or the web."""

from __future__ import annotations

import os
import sys

from pylxc.cli.grammar import Args
from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

MAX_BYTES = 1 << 20
"""Of a recipe, at most."""
_SECONDS = 30


def build_image(session: Session, args: Args) -> None:
    """Have an image built by the recipe that the words name, and give it the aliases wanted.

    Raises:
        BadRequest: there is no recipe there.
    """
    place = args.words[0]
    name, text = _read(place)
    source = {"type": "image", "mode": "pull", "protocol": "recipe", "alias": name, "recipe": text}
    operation = session.client.start("POST", "/1.0/images", {"source": source, "public": args.public})
    fingerprint = str(session.wait(operation, f"Building {name}").metadata["fingerprint"])
    for alias in args.alias or [name]:
        session.client.images.point_alias(alias, fingerprint)
    if not session.quiet:
        print(f"Image built with fingerprint: {fingerprint}")


def _read(place: str) -> tuple[str, str]:
    """Return a recipe's name, which is its file's, and its text."""
    if place == "-":
        name, content = "recipe", sys.stdin.buffer.read(MAX_BYTES + 1)
    elif "://" in place:
        name, content = _fetch(place)
    else:
        name = os.path.basename(place)
        with open(place, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadRequest(f"{place} is too large for a recipe")
    try:
        return name.removesuffix(".yaml").removesuffix(".yml"), content.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{place} is no text, and so no recipe") from None


def _fetch(url: str) -> tuple[str, bytes]:
    from http.client import HTTPException
    from urllib.parse import unquote, urlsplit
    from urllib.request import HTTPRedirectHandler, build_opener

    class Redirects(HTTPRedirectHandler):
        def redirect_request(self, *args: Any) -> Any:
            _require_https(args[-1])
            return super().redirect_request(*args)

    _require_https(url)
    try:
        with build_opener(Redirects).open(url, timeout=_SECONDS) as response:
            content: bytes = response.read(MAX_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise BadRequest(f"Cannot fetch {url}: {getattr(error, 'reason', error)}") from error
    return unquote(urlsplit(url).path.rpartition("/")[2]), content


def _require_https(url: str) -> None:
    # A recipe runs commands as root: who could change it on its way would have them.
    if not url.startswith("https://"):
        raise BadRequest(f"A recipe is fetched by https only, not from {url}")
