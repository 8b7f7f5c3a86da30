"""Taking a staged image into the store and the database: both or neither."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.orm import Session

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.db.models import Image
from pylxc.drivers.image.base import Offer
from pylxc.errors import BadRequest, Conflict, Internal
from pylxc.revert import Reverter
from pylxc.services.events import EventBus
from pylxc.services.images.aliases import add_alias
from pylxc.services.images.metadata import ImageMetadata, parse
from pylxc.services.images.settings import ImageSettings
from pylxc.services.images.store import Staging, Store
from pylxc.services.images.unpack import Unpacker
from pylxc.services.storage.locks import NamedLocks
from pylxc.validate import is_true
from pylxc.wire import images as wire
from pylxc.wire.times import parse_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the caller says of an image beside its files.

    Attributes:
        fingerprint: when it is given, it must be the image's.
        properties: beside those in its metadata; when `replaces` is set, in their place.
        described: what a place says of the image, in place of what its metadata says.
    """

    public: bool = False
    auto_update: bool = False
    cached: bool = False
    filename: str = ""
    fingerprint: str = ""
    expires_at: str | None = None
    properties: dict[str, str] = field(default_factory=dict)
    replaces: bool = False
    profiles: list[str] = field(default_factory=lambda: ["default"])
    aliases: list[wire.ImageAlias] = field(default_factory=list)
    source: dict[str, str] = field(default_factory=dict)
    described: wire.Image | None = None


class Importer:
    """Takes staged images in; thread-safe.

    Args:
        db: gets the row.
        store: gets the files.
        unpacker: reads the metadata.
        locks: held alone, by fingerprint, while files and row come or go.
        events: is told.
        settings: say whether what is cached is kept up to date.
    """

    def __init__(
        self,
        db: Database,
        store: Store,
        unpacker: Unpacker,
        locks: NamedLocks,
        events: EventBus,
        settings: ImageSettings,
    ) -> None:
        self._db = db
        self._store = store
        self._unpacker = unpacker
        self._locks = locks
        self._events = events
        self._settings = settings

    def take(self, project: str, staging: Staging, options: ImportOptions) -> dict[str, Any]:
        """Check a complete staging and make it an image; return `fingerprint` and `size` (bytes, as text).

        Raises:
            BadRequest: it is no image, not for this host, or not the one that was promised.
            Conflict: the project has it already, or an alias is taken.
            Internal: no space left.
        """
        staging.finish()
        fingerprint = staging.fingerprint
        if options.fingerprint and options.fingerprint.lower() != fingerprint:
            raise BadRequest(f"The image's fingerprint is {fingerprint}, not {options.fingerprint[:64]!r}")
        metadata = _described(parse(self._unpacker.read_metadata(staging)), options.described)
        with self._locks.exclusive(fingerprint), Reverter() as revert:
            with self._db.reading() as session:
                _refuse_duplicate(session, project, fingerprint)
                stored_elsewhere = fingerprint in rows.fingerprints(session)
            self._store.put(staging)
            if not stored_elsewhere:
                revert.add(self._store.delete, fingerprint)
            with self._db.transaction() as session:
                _add(session, project, staging, metadata, options)
            revert.success()
        url = f"/1.0/images/{fingerprint}"
        self._events.lifecycle("image-created", url, project=project, context={"type": "container"})
        return {"fingerprint": fingerprint, "size": str(staging.size)}

    def take_pulled(self, project: str, staging: Staging, offer: Offer) -> str:
        """Make a cached image of what a driver has fetched, unless it is one already; return the fingerprint.

        Raises like `take`, and:
            Internal: it is not what was offered.
        """
        staging.finish()
        fingerprint = staging.fingerprint
        if offer.fingerprint and fingerprint != offer.fingerprint:
            raise Internal(
                f"The image is damaged or forged: it has the fingerprint {fingerprint}, not {offer.fingerprint}"
            )
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            present = rows.find(session, scope, fingerprint)
            wanted = is_true(self._settings.value(session, scope, "images.auto_update_cached"))
        if present is None:
            options = ImportOptions(
                cached=True,
                auto_update=wanted and bool(offer.source.get("alias")),  # a fingerprint stays what it is
                filename=offer.image["filename"],
                source=offer.source,
                described=offer.image if offer.described else None,
            )
            self.take(project, staging, options)
        return fingerprint


def _described(metadata: ImageMetadata, told: wire.Image | None) -> ImageMetadata:
    if told is None:
        return metadata
    return replace(
        metadata,
        created_at=parse_timestamp(told["created_at"]) or metadata.created_at,
        expires_at=parse_timestamp(told["expires_at"]),
        properties=told["properties"],
    )


def _add(session: Session, project: str, staging: Staging, metadata: ImageMetadata, options: ImportOptions) -> None:
    scope = _refuse_duplicate(session, project, staging.fingerprint)
    session.add(
        Image(
            project=projects.get(session, scope),
            fingerprint=staging.fingerprint,
            filename=options.filename,
            architecture=metadata.architecture,
            size=staging.size,
            public=options.public,
            cached=options.cached,
            auto_update=options.auto_update,
            properties=options.properties if options.replaces else metadata.properties | options.properties,
            given_properties=metadata.properties,
            profiles=options.profiles,
            source=options.source,
            created_at=metadata.created_at,
            expires_at=expiry(options.expires_at) or metadata.expires_at,
        )
    )
    session.flush()
    for alias in options.aliases:
        add_alias(session, scope, alias["name"], alias.get("description", ""), staging.fingerprint)


def _refuse_duplicate(session: Session, project: str, fingerprint: str) -> str:
    scope = projects.scope_name(session, project, "images")
    if rows.find(session, scope, fingerprint):
        raise Conflict("Image with same fingerprint already exists")
    return scope


def expiry(text: str | None) -> dt.datetime | None:
    """Return the time that a client wrote for `expires_at`, None for never.

    Raises:
        BadRequest: it is no time with a zone.
    """
    try:
        moment = parse_timestamp(text or "")
    except ValueError as error:
        raise BadRequest(f"Invalid expires_at: {error}") from error
    return moment if moment and moment.timestamp() > 0 else None
