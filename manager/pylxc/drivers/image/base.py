"""What image drivers have in common: each knows one kind of place that images come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pylxc.errors import BadRequest
from pylxc.kernel.architecture import host_architectures
from pylxc.wire import images as wire
from pylxc.wire.times import NEVER

_FINGERPRINT = re.compile("[0-9a-f]{64}")

Cancelled = Callable[[], None]
"""Raises when the user has asked for the end; long work calls it now and then."""


class Progress(Protocol):
    """Tells how far a fetch is."""

    def __call__(self, key: str, text: str, **numbers: int) -> None:
        """Take a key that ends in `_progress`, what people are shown and the numbers in it: `Operation.progress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What drivers know of the host that they work for.

    Attributes:
        recipes: directories of recipe files, the user's own first.
        cache: directory for what is kept of other places; made when it is needed.
        setting: returns the value of a server configuration key.
    """

    recipes: tuple[str, ...]
    cache: str
    setting: Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An image that a place has, found but not fetched.

    Attributes:
        source: what the image's row keeps to be refreshed from: protocol, server, alias, certificate, and `version`
            where there is no fingerprint beforehand. Without an alias it is not refreshed.
        version: changes when the place's image does; an image in the store with another one is out of date.
        image: what the place says of it, as GET /1.0/images has it; `fingerprint` is "" and `size` 0 where it is not
            known before the image is there.
        described: what the place says of it counts, and not what its own metadata says.
        hidden: what the driver needs to fetch it and nobody else is to see.
    """

    source: dict[str, str]
    version: str
    image: wire.Image
    described: bool = False
    hidden: Any = None

    @property
    def fingerprint(self) -> str:
        """The image's, "" where the place does not know it beforehand."""
        return self.image["fingerprint"]


class Area(Protocol):
    """Where a driver puts an image: files written or added in the order "metadata", "rootfs".

    `directory` is scratch space on the same file system; it is removed in the end.
    """

    directory: str

    def begin(self, part: str) -> None:
        """Begin the part that `write` goes to."""

    def write(self, chunk: bytes) -> None:
        """Append to the part that was begun."""

    def add(self, part: str, path: str) -> None:
        """Take a complete file of the scratch space as a part."""


class ImageDriver(Protocol):
    """One kind of place. Thread-safe, without state of its own but caches; made with a `Host`."""

    def find(self, source: Mapping[str, str], check_cancelled: Cancelled, *, fresh: bool) -> Offer:
        """Return what the place has now for `source` (alias or fingerprint, server, ...).

        Args:
            source: as a client gives it, or an image's row keeps it.
            check_cancelled: is called often.
            fresh: fail when the place cannot be reached, instead of returning what was known of it last.

        Raises:
            BadRequest: the source is malformed, or the image is for another kind of machine.
            NotFound: it has no such image.
            PylxcError: it cannot be asked.
        """

    def listing(self, source: Mapping[str, str]) -> bytes:
        """Return everything that the place has, as the JSON array that GET /1.0/images?recursion=1 would answer.

        It may be as old as a minute. Raises like `find`.
        """

    def fetch(self, offer: Offer, area: Area, progress: Progress, check_cancelled: Cancelled) -> None:
        """Get the image's files into `area`.

        Raises:
            PylxcError: it cannot be had; or what `check_cancelled` raises.
        """


def is_fingerprint(value: object) -> bool:
    """Tell whether something from elsewhere is a whole fingerprint, in lower case."""
    return isinstance(value, str) and bool(_FINGERPRINT.fullmatch(value))


def other_project(source: Mapping[str, str]) -> str:
    """Return the project that an image is in where it comes from, "" for the one that every server has."""
    project = source.get("project") or ""
    return "" if project == "default" else project


def refuse_foreign(image: wire.Image, wanted: str) -> None:
    """Refuse an image that this host cannot run.

    Args:
        image: what a place says of it.
        wanted: what it was asked for by.

    Raises:
        BadRequest: it is for another kind of machine.
    """
    if image["architecture"] not in host_architectures():
        own = " and ".join(host_architectures())
        raise BadRequest(f"The image {wanted[:100]!r} is for {image['architecture']}, and this host runs {own}")


def wire_image(**known: Any) -> wire.Image:
    """Return an image as the wire has it, of what a place knows of it; the rest is what it is for every offer."""
    image: wire.Image = {
        "auto_update": False,
        "properties": {},
        "public": True,
        "expires_at": NEVER,
        "profiles": [],
        "aliases": [],
        "architecture": "",
        "cached": False,
        "filename": "",
        "fingerprint": "",
        "size": 0,
        "type": "container",
        "created_at": NEVER,
        "last_used_at": NEVER,
        "uploaded_at": NEVER,
    }
    image.update(known)  # type: ignore[typeddict-item]
    return image
