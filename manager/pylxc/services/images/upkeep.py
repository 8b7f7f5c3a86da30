"""Upkeep of images: those whose source has a newer version are replaced, cached ones that nobody uses go."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.db.models import Clock, Image
from pylxc.errors import BadRequest, Internal, NotFound, PylxcError
from pylxc.services.events import EventBus
from pylxc.services.images.pull import Puller
from pylxc.services.images.remove import Remover
from pylxc.services.images.settings import ImageSettings
from pylxc.services.images.unpack import Unpacker
from pylxc.services.operations import Operation, Operations
from pylxc.services.storage.locks import NamedLocks
from pylxc.services.storage.volumes import Volumes

log = logging.getLogger(__name__)

ImageKey = tuple[str, str]
"""Project and fingerprint."""


class Upkeep:
    """Keeps images fresh and drops unused ones; thread-safe.

    Args:
        db: has the rows.
        volumes: gets volumes of the new images.
        operations: show what is done.
        events: is told.
        puller: fetches.
        remover: removes.
        unpacker: unpacks.
        locks: by fingerprint; shared by whoever uses an image.
        settings: say what is wanted.
        clock: returns the time.
    """

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        db: Database,
        volumes: Volumes,
        operations: Operations,
        events: EventBus,
        puller: Puller,
        remover: Remover,
        unpacker: Unpacker,
        locks: NamedLocks,
        settings: ImageSettings,
        clock: Clock,
    ) -> None:
        self._db = db
        self._volumes = volumes
        self._operations = operations
        self._events = events
        self._puller = puller
        self._remover = remover
        self._unpacker = unpacker
        self._locks = locks
        self._settings = settings
        self._clock = clock

    def intervals(self) -> dict[str, dt.timedelta | None]:
        """Return how often each project that has images of its own wants them updated, None for never."""
        with self._db.reading() as session:
            names = [row.name for row in projects.everything(session) if projects.scope(row, "images") == row.name]
            hours = {name: self._settings.number(session, name, "images.auto_update_interval") for name in names}
        return {name: dt.timedelta(hours=count) if count > 0 else None for name, count in hours.items()}

    def update(self, project: str) -> None:
        """Replace the project's images that are to be updated and whose sources have newer ones; return when done.

        An image that cannot be updated stays as it is and keeps no other from being updated.

        Raises:
            Internal: some could not be updated, and should be tried again soon; which and why is in the log.
        """
        with self._db.reading() as session:
            images = [image for image in rows.of_project(session, project) if image.auto_update and _has_source(image)]
        if images:
            self._run("Updating images", [(project, image.fingerprint) for image in images], self._update)

    def _update(self, images: list[ImageKey], operation: Operation) -> None:
        failed = 0
        for project, fingerprint in images:
            try:
                with self._db.reading() as session:
                    image = rows.find(session, project, fingerprint)
                if image is not None:
                    self._renew(project, image, operation)
            except PylxcError as error:
                operation.check_cancelled()
                log.warning("Cannot update image %s, which stays as it is: %s", fingerprint[:12], error)
                failed += not isinstance(
                    error, NotFound
                )  # what a place does not have any more it need not be asked soon
        if failed:
            raise Internal(f"{failed} of {len(images)} images could not be updated")

    def refresh(self, project: str, fingerprint: str) -> Operation:
        """Start replacing an image by what its source has now; metadata `refreshed` tells whether it was another one.

        A place that does not know beforehand what it makes, a recipe, makes it anew.

        Raises:
            NotFound: no such image.
            BadRequest: it came from nowhere.
        """
        with self._db.reading() as session:
            image = rows.get(session, projects.scope_name(session, project, "images"), fingerprint)
        if not _has_source(image):
            raise BadRequest("The image has no source to be refreshed from")

        def run(operation: Operation) -> dict[str, Any]:
            new = self._renew(project, image, operation, anew=True)
            return {"refreshed": new != image.fingerprint, "fingerprint": new}

        return self._operations.start(
            "Refreshing image",
            run,
            project=project,
            resources={"images": [f"/1.0/images/{image.fingerprint}"]},
            cancellable=True,
        )

    def expire(self) -> None:
        """Remove the cached images that nobody has used for as long as their projects keep them; return when done.

        `expires_at` is what an image says of itself and removes nothing: so it is with LXD.
        """
        with self._db.reading() as session:
            cached = [image for image in rows.of_project(session, None) if image.cached]
            unused = [(image.project.name, image.fingerprint) for image in cached if self._is_unused(session, image)]
        if unused:
            self._run("Cleaning up expired images", unused, self._expire)

    def _expire(self, images: list[ImageKey], operation: Operation) -> None:
        for project, fingerprint in images:
            operation.check_cancelled()
            if self._remover.remove(project, fingerprint, self._is_unused):
                log.info("Removed the cached image %s: nobody has used it for long", fingerprint[:12])

    def _is_unused(self, session: Session, image: Image) -> bool:
        days = self._settings.number(session, image.project.name, "images.remote_cache_expiry")
        last = image.last_used_at or image.uploaded_at
        return image.cached and days > 0 and last + dt.timedelta(days=days) <= self._clock()

    def _run(self, description: str, images: list[ImageKey], work: Callable[[list[ImageKey], Operation], None]) -> None:
        """Do scheduled work in an operation that can be seen and cancelled."""
        urls = [f"/1.0/images/{fingerprint}" for _, fingerprint in images]
        operation = self._operations.start(
            description, lambda found: work(images, found), project="", resources={"images": urls}, cancellable=True
        )
        operation.wait()
        if error := operation.to_json()["err"]:
            raise Internal(str(error))

    def _renew(self, project: str, image: Image, operation: Operation, *, anew: bool = False) -> str:
        """Replace an image by its source's present one and return the fingerprint of that; `anew` makes it anew."""
        offer = self._puller.find(image.source, operation, fresh=True)
        if image.fingerprint == offer.fingerprint:
            return image.fingerprint
        if not offer.fingerprint and not anew and offer.version == image.source.get("version"):
            return image.fingerprint
        # Cached until it is in the old one's place: what a crash leaves here is either taken next time, or goes.
        new = self._puller.pull(project, offer, operation, fresh=anew)
        if new == image.fingerprint:
            return new
        self._make_volumes(image.fingerprint, new)
        if not self._remover.remove(project, image.fingerprint, partial(_hand_over, new=new, source=offer.source)):
            # One of both was deleted meanwhile. Who deletes an image wants no other in its place.
            self._remover.remove(project, new, _is_left_over)
            return image.fingerprint
        self._events.lifecycle("image-refreshed", f"/1.0/images/{new}", project=project)
        return new

    def _make_volumes(self, old: str, new: str) -> None:
        """Unpack the new image wherever the old one is, so that no launch has to wait for that."""
        for pool in self._volumes.image_pools(old):
            try:
                with self._locks.shared(new):
                    self._volumes.ensure_image(pool, new, partial(self._unpacker.unpack, new))
            except PylxcError as error:
                log.warning("Cannot unpack image %s into storage pool %s yet: %s", new[:12], pool, error)


def _has_source(image: Image) -> bool:
    return bool(image.source.get("protocol") and image.source.get("alias"))


def _hand_over(session: Session, former: Image, *, new: str, source: dict[str, str]) -> bool:
    """Give the image `new` all that users have made of the former one; return False when it is not there any more.

    It may have been here before, by its fingerprint: from now on `source` is where its next version is.
    """
    image = rows.find(session, former.project.name, new)
    if image is None:
        return False
    for alias in rows.aliases_of(session, [former])[former.id]:
        alias.image = image
    given = former.given_properties
    taken_away = given.keys() - former.properties.keys()
    changed = {key: value for key, value in former.properties.items() if given.get(key) != value}
    image.properties = {k: v for k, v in image.properties.items() if k not in taken_away} | changed
    image.public = image.public or former.public
    image.cached = image.cached and former.cached
    image.auto_update = former.auto_update
    image.profiles = list(former.profiles)
    image.source = source
    image.last_used_at = max(filter(None, (former.last_used_at, image.last_used_at)), default=None)
    return True


def _is_left_over(session: Session, image: Image) -> bool:
    return image.cached and image.last_used_at is None and not rows.aliases_of(session, [image])[image.id]
