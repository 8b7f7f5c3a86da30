"""Snapshots of custom volumes: taken by hand and on schedule, renamed, deleted, removed when their time is over."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from pylxc import validate
from pylxc.config.storage import VOLUME
from pylxc.db import jobs, models, volumes
from pylxc.db.engine import Database
from pylxc.db.models import Clock
from pylxc.errors import Conflict, PylxcError
from pylxc.revert import Reverter
from pylxc.services import etag, expiry, schedules, snapshot_names
from pylxc.services.operations import Operation, Operations
from pylxc.services.projects import admission
from pylxc.services.rendering.renderer import Renderer
from pylxc.services.storage.listing import url
from pylxc.services.storage.places import Place
from pylxc.services.volumes.store import VolumeStore, load, place_of, resources
from pylxc.wire.storage import (
    StorageVolumeSnapshot,
    StorageVolumeSnapshotPost,
    StorageVolumeSnapshotPut,
    StorageVolumeSnapshotsPost,
)
from pylxc.wire.times import timestamp

log = logging.getLogger(__name__)

TAKE = "volume-snapshots-take"
"""Name of the job that takes them on schedule; its last run is where the next one goes on."""


class VolumeSnapshots:
    """Snapshots of custom volumes; thread-safe."""

    def __init__(
        self, db: Database, store: VolumeStore, operations: Operations, renderer: Renderer, clock: Clock
    ) -> None:
        self._db = db
        self._store = store
        self._operations = operations
        self._renderer = renderer
        self._clock = clock

    # Reading

    def urls(self, project: str, pool: str, name: str) -> list[str]:
        """Return the URLs of a volume's snapshots, oldest first; raises NotFound."""
        place = self._store.find(project, pool, name)
        return [url(place.at(row.name)) for row in self._store.snapshots(place)]

    def list(self, project: str, pool: str, name: str) -> list[StorageVolumeSnapshot]:
        """Return a volume's snapshots, called VOLUME/SNAPSHOT, oldest first; raises NotFound."""
        place = self._store.find(project, pool, name)
        return [render(row) | {"name": f"{name}/{row.name}"} for row in self._store.snapshots(place)]

    def get(self, project: str, pool: str, name: str, snapshot: str) -> tuple[StorageVolumeSnapshot, str]:
        """Return a snapshot and its entity tag; raises NotFound."""
        row = self._row(self._store.find(project, pool, name).at(snapshot))
        return render(row), etag.etag(*_tagged(row))

    def _row(self, place: Place) -> models.VolumeSnapshot:
        with self._db.reading() as session:
            return _load(session, place)

    # Taking

    def create(self, project: str, pool: str, name: str, body: StorageVolumeSnapshotsPost) -> Operation:
        """Start taking a snapshot; instances may run with the volume meanwhile.

        Raises:
            NotFound: there is no such volume.
            BadRequest: a malformed name or time.
            Conflict: the name is taken.
            Forbidden: the project allows no snapshots.
        """
        place = self._store.find(project, pool, name)
        row = self._store.row(place)
        snapshot = body.get("name") or self._next_name(row)
        validate.snapshot_name(snapshot)
        if "expires_at" in body and body["expires_at"] is not None:
            expires_at = expiry.given(body["expires_at"])
        else:
            expires_at = expiry.after(self._clock(), row.config.get("snapshots.expiry", ""))
        with self._db.reading() as session:
            admission.refuse_snapshots(session, project)
            _check_free(session, row.id, snapshot)
        place = place.at(snapshot)

        def run(_operation: Operation) -> None:
            self._take(place, expires_at, body.get("description", ""))

        return self._start("Creating storage volume snapshot", project, place, run)

    def _next_name(self, row: models.StorageVolume) -> str:
        def render(source: str, variables: Mapping[str, Any]) -> str:
            return self._renderer.render([("snapshots.pattern", source, variables)])[0]

        with self._db.reading() as session:
            taken = volumes.claimed(session, row.id)
        return snapshot_names.following(VOLUME.value(row.config, "snapshots.pattern"), taken, self._clock(), render)

    def _take(self, place: Place, expires_at: dt.datetime | None, description: str = "") -> None:
        with self._store.holding(shared=[place]), Reverter() as revert:
            with self._db.transaction() as session:
                volume = load(session, place)
                admission.refuse_snapshots(session, place.project)
                _check_free(session, volume.id, place.snapshot)
                row = models.VolumeSnapshot(
                    volume=volume,
                    name=place.snapshot,
                    description=description or volume.description,
                    config=volume.config,
                    created_at=self._clock(),
                    expires_at=expires_at,
                )
                session.add(row)
            revert.add(self._store.drop_snapshot, place)
            with self._store.still(place.at("")):
                self._store.trees.copy(place.at(""), place)
            with self._db.transaction() as session:
                session.get_one(models.VolumeSnapshot, row.id).state = "created"
            revert.success()
        self._store.tell("created", place)

    # Changing

    def update(
        self,
        project: str,
        pool: str,
        name: str,
        snapshot: str,
        body: StorageVolumeSnapshotPut,
        *,
        patch: bool = False,
        if_match: str | None = None,
    ) -> None:
        """Change a snapshot's description, and when it expires; with `patch` only what is given.

        Raises:
            NotFound: there is none.
            BadRequest: no time.
            PreconditionFailed: `if_match` is of another state.
        """
        place = self._store.find(project, pool, name).at(snapshot)
        with self._db.transaction() as session:
            row = _load(session, place)
            etag.check(if_match, *_tagged(row))
            if "description" in body or not patch:
                row.description = body.get("description", "")
            if "expires_at" in body or not patch:
                row.expires_at = expiry.given(body.get("expires_at"))
        self._store.tell("updated", place)

    def rename(self, project: str, pool: str, name: str, snapshot: str, body: StorageVolumeSnapshotPost) -> Operation:
        """Start renaming a snapshot.

        Raises:
            NotFound: there is none.
            BadRequest: the new name is none.
            Conflict: the new name is taken.
        """
        place = self._store.find(project, pool, name).at(snapshot)
        new = body.get("name", "")
        validate.snapshot_name(new)
        with self._db.reading() as session:
            _check_free(session, _load(session, place).storage_volume_id, new)

        def run(_operation: Operation) -> None:
            with self._store.holding(place):
                with self._db.transaction() as session:
                    row = _load(session, place)
                    _check_free(session, row.storage_volume_id, new)
                    row.new_name = new
                self._finish_rename(place, new)
            self._store.tell("renamed", place.at(new), {"old_name": snapshot})

        return self._start("Renaming storage volume snapshot", project, place, run)

    def _finish_rename(self, place: Place, new: str) -> None:
        self._store.trees.rename(place, place.at(new))
        with self._db.transaction() as session:
            row = _load(session, place)
            row.name, row.new_name = new, ""

    def delete(self, project: str, pool: str, name: str, snapshot: str) -> Operation:
        """Start deleting a snapshot; raises NotFound."""
        place = self._store.find(project, pool, name).at(snapshot)
        self._row(place)
        return self._start("Deleting storage volume snapshot", project, place, lambda _operation: self._remove(place))

    def _remove(self, place: Place) -> None:
        with self._store.holding(place):
            self._store.drop_snapshot(place)
        self._store.tell("deleted", place)

    def _start(self, description: str, project: str, place: Place, run: Any) -> Operation:
        named = {**resources(place.at("")), "storage_volume_snapshots": [url(place)]}
        return self._operations.start(description, run, project=project, resources=named)

    # The daemon's

    def take_scheduled(self) -> None:
        """Take the snapshots that became due since the last run, one per volume however many were missed."""
        at = self._clock()
        with self._db.reading() as session:
            since = jobs.last_runs(session).get(TAKE, at)
            rows = [row for row in volumes.created(session) if row.config.get("snapshots.schedule")]
        for row in rows:
            place = place_of(row)
            if not schedules.is_due(row.config["snapshots.schedule"], f"{place.pool}/{place.path}", since, at):
                continue
            try:
                expires_at = expiry.after(at, row.config.get("snapshots.expiry", ""))
                self._take(place.at(self._next_name(row)), expires_at)
            except PylxcError as error:
                log.warning("Failed taking a snapshot of volume %s/%s on schedule: %s", place.pool, row.name, error)

    def expire(self) -> None:
        """Delete the snapshots whose time is over."""
        with self._db.reading() as session:
            old = [place_of(row.volume).at(row.name) for row in volumes.expired(session, self._clock())]
        for place in old:
            try:
                self._remove(place)
            except PylxcError as error:
                log.warning("Snapshot %s/%s has expired and cannot be deleted: %s", place.name, place.snapshot, error)

    def reconcile(self, _pool: str = "") -> None:
        """Finish or undo what a dead daemon left; call when volumes have their names.

        What is in pools that cannot be used is left until they are back.
        """
        with self._db.reading() as session:
            left = [place_of(row.volume).at(row.name) for row in volumes.unsettled_snapshots(session)]
        for place in left:
            log.warning("Clearing up snapshot %s/%s, left by a daemon that died", place.name, place.snapshot)
            try:
                with self._store.holding(place):
                    self._finish(place)
            except PylxcError as error:
                log.error("Failed clearing up snapshot %s/%s: %s", place.name, place.snapshot, error)

    def _finish(self, place: Place) -> None:
        """Finish what is under way of a snapshot; if that is done meanwhile, nothing."""
        with self._db.reading() as session:
            row = volumes.snapshot(session, load(session, place).id, place.snapshot, state=None)
        if row.new_name:
            self._finish_rename(place, row.new_name)
        elif row.state != "created":
            self._store.drop_snapshot(place)


def _load(session: Session, place: Place) -> models.VolumeSnapshot:
    return volumes.snapshot(session, load(session, place).id, place.snapshot)


def _check_free(session: Session, volume_id: int, snapshot: str) -> None:
    if snapshot in volumes.claimed(session, volume_id):
        raise Conflict(f'Snapshot "{snapshot}" already in use')


def _tagged(row: models.VolumeSnapshot) -> tuple[object, ...]:
    return row.name, row.description, timestamp(row.expires_at)


def render(row: models.VolumeSnapshot) -> StorageVolumeSnapshot:
    """Return a snapshot as the wire has it."""
    return {
        "description": row.description,
        "expires_at": timestamp(row.expires_at),
        "name": row.name,
        "config": row.config,
        "content_type": row.volume.content_type,
        "created_at": timestamp(row.created_at),
    }
