"""What image drivers have in common: each knows one kind of place that images come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

Progress = Callable[[str, str], None]
"""`progress(key, text)`: a key that ends in `_progress` and what people are shown."""

Cancelled = Callable[[], None]
"""Raises when the user has asked for the end; long work calls it now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An image that a place has, found but not fetched.

    Attributes:
        source: what the image's row keeps to be refreshed from: server, protocol, alias, certificate, and `version`.
        version: changes when the place's image does; an image in the store with another one is out of date.
        fingerprint: where the place knows it beforehand, else "".
        aliases: all names that the place gives it.
    """

    source: dict[str, str]
    version: str
    fingerprint: str = ""
    architecture: str
    aliases: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)


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
    """One kind of place. Thread-safe, without state of its own but caches."""

    def find(self, source: Mapping[str, str]) -> Offer:
        """Return what the place has for `source` (alias or fingerprint, server, ...).

        Raises:
            NotFound: it has no such image.
            PylxcError: it cannot be asked.
        """

    def offers(self, source: Mapping[str, str]) -> list[Offer]:
        """Return everything that the place has for this host, by name."""

    def fetch(self, offer: Offer, area: Area, progress: Progress, check_cancelled: Cancelled) -> None:
        """Get the image's files into `area`.

        Raises:
            PylxcError: it cannot be had; or what `check_cancelled` raises.
        """
