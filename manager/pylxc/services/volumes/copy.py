"""Copying custom volumes, and bringing a copy up to date."""

from __future__ import annotations

from pylxc.db import models
from pylxc.revert import Reverter
from pylxc.services.storage.places import Place
from pylxc.services.volumes.store import VolumeStore, load


class VolumeCopier:
    """Copies volumes; the caller holds the new one alone and shares the source. Thread-safe."""

    def __init__(self, store: VolumeStore) -> None:
        self._store = store

    def copy(self, source: Place, place: Place, description: str, config: models.Config, *, whole: bool) -> None:
        """Make a volume as a copy of another one or of a snapshot.

        Args:
            source: what is copied.
            place: the new volume.
            description: the new volume's.
            config: likewise.
            whole: with the source's snapshots.

        Raises:
            Conflict: the name is taken.
            NotSupported: the configuration has a size, and the pool has no sizes.
            Internal: no space left; nothing is left behind.
        """
        with self._store.made(place, description, config) as row:
            self.fill(source, place, config, whole=whole)
            self._store.finish(row)

    def fill(self, source: Place, place: Place, config: models.Config, *, whole: bool) -> None:
        """Make the trees of a volume whose row is there, and its snapshots; raises like `copy`."""
        with self._store.still(source):
            self._store.trees.copy(source, place)
        self._store.fit(place, config)
        for snapshot in self._store.snapshots(source) if whole else []:
            self._copy_snapshot(source, snapshot, place)

    def refresh(self, source: Place, place: Place, *, whole: bool) -> None:
        """Bring a copy up to date: its tree, and with `whole` its snapshots, but not its configuration.

        Raises:
            BadRequest: an instance runs with the copy.
            Internal: no space left; the tree is as it was.
        """
        self._store.refuse_running(place, "Volume is still in use by running instances")
        wanted = {row.name: row for row in self._store.snapshots(source)} if whole else {}
        present = {row.name: row.created_at for row in self._store.snapshots(place)} if whole else {}
        for name, row in wanted.items():
            if name in present and present[name] != row.created_at:
                self._store.drop_snapshot(place.at(name))
            if present.get(name) != row.created_at:
                self._copy_snapshot(source, row, place)
        with self._store.still(source):
            self._store.trees.refresh(source, place)
        # Last: what fails before takes nothing away that is only here.
        for name in present.keys() - wanted.keys():
            self._store.drop_snapshot(place.at(name))

    def _copy_snapshot(self, source: Place, row: models.VolumeSnapshot, place: Place) -> None:
        with Reverter() as revert:
            with self._store.db.transaction() as session:
                made = models.VolumeSnapshot(
                    volume=load(session, place, state=None),
                    name=row.name,
                    description=row.description,
                    config=row.config,
                    created_at=row.created_at,
                    expires_at=row.expires_at,
                )
                session.add(made)
            revert.add(self._store.drop_snapshot, place.at(row.name))
            self._store.trees.copy(source.at(row.name), place.at(row.name))
            with self._store.db.transaction() as session:
                session.get_one(models.VolumeSnapshot, made.id).state = "created"
            revert.success()
