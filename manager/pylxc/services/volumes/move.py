"""Renaming custom volumes, and moving them to another pool or project; what names them follows."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from pylxc.db import models, storage, volumes
from pylxc.errors import BadRequest, Conflict
from pylxc.services.storage.places import Place
from pylxc.services.volumes.copy import VolumeCopier
from pylxc.services.volumes.store import VolumeStore, load, name_of, refuse_attached


class VolumeMover:
    """Renames and moves volumes; the caller holds the old place and the new one alone. Thread-safe."""

    def __init__(self, store: VolumeStore, copier: VolumeCopier) -> None:
        self._store = store
        self._copier = copier

    def check(self, session: Session, place: Place, new: Place) -> None:
        """Check that a volume can go to a new place.

        Raises:
            Conflict: the name is taken there.
            BadRequest: instances run with it, or what has it cannot follow to another project.
        """
        if storage.volume(session, new.pool, new.project, "custom", new.name, state=None) is not None:
            raise Conflict("Volume by that name already exists")
        refuse_attached(session, place, "Volume is still in use by running instances")
        if new.project != place.project and volumes.users(session).get(name_of(place)):
            raise BadRequest(
                "The storage volume is still in use", hint="instances use volumes of their own project only"
            )

    def rename(self, place: Place, new: Place) -> None:
        """Give a volume another name in its pool; raises like `check`."""
        with self._store.db.transaction() as session:
            self.check(session, place, new)
            load(session, place).new_name = new.name
        self.finish_rename(place, new.name)

    def finish_rename(self, place: Place, name: str) -> None:
        """Carry out a rename that the volume's row tells of."""
        new = replace(place, name=name)
        self._store.trees.rename(place, new)
        with self._store.db.transaction() as session:
            row = load(session, place)
            row.name, row.new_name = name, ""
            volumes.rename(session, name_of(place), (new.pool, name))

    def move(self, place: Place, new: Place) -> None:
        """Copy a volume with its snapshots to another pool or project, then use the copy.

        With one transaction the copy is used and the old one given up.

        Raises:
            Internal: no space left; all is as it was. And like `check`.
        """
        with self._store.db.reading() as session:
            self.check(session, place, new)
            old = load(session, place)
        self._store.require_size(new.pool, old.config)
        with self._store.made(new, old.description, old.config, takes=new.project != place.project) as row:
            self._copier.fill(place, new, old.config, whole=True)
            self._store.trees.flush(new.pool)  # the old one goes
            with self._store.db.transaction() as session:
                made = session.get_one(models.StorageVolume, row.id)
                made.state, made.created_at = "created", old.created_at
                load(session, place).state = "deleting"
                volumes.rename(session, name_of(place), (new.pool, new.name))
        self._store.remove(old)
