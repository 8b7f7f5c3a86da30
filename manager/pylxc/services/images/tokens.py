"""Tokens for images: a server that nobody trusts here fetches one image by one, or sends one that is waited for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pylxc.db.models import Clock
from pylxc.services.images.importing import ImportOptions
from pylxc.services.operations import Operation, Operations
from pylxc.services.tokens import Tokens
from pylxc.wire import images as wire

LIFETIME = dt.timedelta(minutes=10)
"""Of a token that is not used; what has begun goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An image of a project that a token is about; `options` are what it becomes when it is sent here."""

    project: str
    fingerprint: str
    options: ImportOptions = field(default_factory=ImportOptions)

    def begins(self, prefix: str) -> bool:
        """Tell whether a caller has named this image."""
        return bool(prefix) and self.fingerprint.startswith(prefix.lower())


class ImageTokens:
    """What other servers may fetch from here and send here; thread-safe."""

    def __init__(self, operations: Operations, clock: Clock) -> None:
        self._clock = clock
        self._downloads: Tokens[Grant] = Tokens(operations, clock)
        self._uploads: Tokens[Grant] = Tokens(operations, clock)

    def for_download(self, project: str, fingerprint: str) -> Operation:
        """Return the operation whose metadata has a `secret` that lets its bearer fetch an image."""
        return self._downloads.issue(
            "Image download token",
            Grant(project=project, fingerprint=fingerprint),
            project=project,
            expires_at=self._clock() + LIFETIME,
            resources={"images": [f"/1.0/images/{fingerprint}"]},
        )

    def for_upload(self, project: str, fingerprint: str, options: ImportOptions, body: wire.ImagesPost) -> Operation:
        """Return the operation whose metadata has a `secret` that lets its bearer send an image, as `body` asks."""
        asked = {key: body.get(key) for key in ("aliases", "expires_at", "properties", "public")}
        return self._uploads.issue(
            "Image upload token",
            Grant(project=project, fingerprint=fingerprint, options=options),
            project=project,
            expires_at=self._clock() + LIFETIME,
            resources={"images": [f"/1.0/images/{fingerprint}"]},
            metadata={key: value for key, value in asked.items() if value is not None},
        )

    def look(self, secret: str, prefix: str) -> Grant | None:
        """Return the image that `secret` lets its bearer fetch, if it begins with `prefix`; that uses nothing up."""
        return self._downloads.look(secret, lambda grant: grant.begins(prefix))

    @contextmanager
    def fetching(self, secret: str, prefix: str) -> Iterator[Grant | None]:
        """Let the bearer of `secret` fetch an image, once: when it breaks off it may be tried again."""
        with self._downloads.using(secret, lambda grant: grant.begins(prefix)) as grant:
            yield grant

    def redeem(self, secret: str, fingerprint: str) -> Grant | None:
        """Let the bearer of `secret` send the image `fingerprint`, once."""
        return self._uploads.redeem(secret, lambda grant: grant.fingerprint == fingerprint.lower())
