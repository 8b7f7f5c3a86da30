"""Removing images: row, files and volumes, when nobody is using them; and what a crash left of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.orm import Session

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.db.models import Image
from pylxc.errors import PylxcError
from pylxc.services.events import EventBus
from pylxc.services.images.store import Store
from pylxc.services.storage.locks import NamedLocks
from pylxc.services.storage.volumes import Volumes

log = logging.getLogger(__name__)


class Remover:
    """Removes images; thread-safe.

    Args:
        db: has the rows.
        store: has the files.
        volumes: has the volumes.
        locks: by fingerprint; shared by whoever uses an image, and held alone here.
        events: is told.
    """

    def __init__(self, db: Database, store: Store, volumes: Volumes, locks: NamedLocks, events: EventBus) -> None:
        self._db = db
        self._store = store
        self._volumes = volumes
        self._locks = locks
        self._events = events

    def remove(
        self, project: str, fingerprint: str, approve: Callable[[Session, Image], bool] = lambda _session, _image: True
    ) -> bool:
        """Remove an image when nobody uses it any more, with its aliases; return whether it was done.

        Files and volumes go with the last project that has it. Row and aliases go first and at once; what a crash
        keeps from following is swept at the next start.

        Args:
            project: whose image it is.
            fingerprint: all of it.
            approve: asked in the transaction that removes the row, before it does.
        """
        with self._locks.exclusive(fingerprint):
            with self._db.transaction() as session:
                image = rows.find(session, projects.scope_name(session, project, "images"), fingerprint)
                if image is None or not approve(session, image):
                    return False
                session.flush()  # what `approve` has moved elsewhere does not go with the row
                shared = rows.is_used_elsewhere(session, image)
                session.delete(image)
            if not shared:
                self._store.delete(fingerprint)
                self._volumes.delete_image(fingerprint)
        self._events.lifecycle("image-deleted", f"/1.0/images/{fingerprint}", project=project)
        return True

    def settle(self) -> None:
        """Make rows, files and volumes agree after a crash; call once, before requests come."""
        with self._db.transaction() as session:
            known = rows.fingerprints(session)
            lost = self._store.sweep(known)
            for image in rows.of_project(session, None):
                if image.fingerprint in lost:
                    log.warning("Forgetting image %s: its file is gone", image.fingerprint)
                    session.delete(image)
        for fingerprint in sorted(self._volumes.images() - known.difference(lost)):
            try:
                self._volumes.delete_image(fingerprint)
            except PylxcError as error:
                log.warning("Cannot remove the volumes of image %s, which is gone: %s", fingerprint[:12], error)
