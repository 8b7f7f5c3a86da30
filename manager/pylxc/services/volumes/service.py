"""Custom volumes: the one door to what is done with them, except their snapshots."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from pylxc import validate
from pylxc.config.storage import VOLUME
from pylxc.db import models, projects, storage, volumes
from pylxc.db.engine import Database
from pylxc.drivers.device.driver import Volume
from pylxc.errors import BadRequest, Conflict, NotSupported, PylxcError
from pylxc.revert import Reverter
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.operations import Operation, Operations
from pylxc.services.projects import admission
from pylxc.services.storage.listing import tagged
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools
from pylxc.services.volumes.copy import VolumeCopier
from pylxc.services.volumes.move import VolumeMover
from pylxc.services.volumes.store import (
    MAPPING,
    VolumeStore,
    checked,
    load,
    name_of,
    place_of,
    refuse_attached,
    resources,
    size_of,
)
from pylxc.wire.storage import StorageVolumePost, StorageVolumePut, StorageVolumeSource, StorageVolumesPost

log = logging.getLogger(__name__)

_MODE = 0o711
"""Of a new volume's directory, as instances see it; the directories above it keep the host's users out."""


class CustomVolumes:
    """Volumes that users make; thread-safe.

    Attributes:
        store: their rows and trees.
    """

    def __init__(self, db: Database, storage: StoragePools, operations: Operations, events: EventBus) -> None:
        self._db = db
        self._operations = operations
        self.store = VolumeStore(db, storage, events)
        self._copier = VolumeCopier(self.store)
        self._mover = VolumeMover(self.store, self._copier)

    # For instances

    def mountable(self, project: str, pool: str, name: str) -> Volume:
        """Return what an instance of `project` mounts of a volume.

        Raises:
            NotFound: there is no such volume.
            Unavailable: its pool cannot be used.
        """
        place = self.store.find(project, pool, name)
        mapped = not VOLUME.is_true(self.store.row(place).config, "security.unmapped")
        return Volume(path=self.store.trees.path(place), mapped=mapped)

    @contextmanager
    def using(self, project: str, wanted: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Share the volumes, by pool and name, that an instance of `project` is about to mount.

        To be held from before `mountable` until the instance's row says what it has.

        Raises:
            Conflict: one is being changed, and that takes long.
        """
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "storage.volumes")
        with self.store.sharing(Place(pool, scope, name, kind="custom") for pool, name in wanted):
            yield

    # Making

    def create(self, project: str, pool: str, body: StorageVolumesPost) -> Operation | None:
        """Make a volume, or start making it as a copy of another one: the operation then.

        Raises:
            NotFound: there is no such pool or source.
            BadRequest: a malformed name or configuration, or an unknown kind of volume or source.
            Conflict: the name is taken.
            NotSupported: a block volume, a source on another server, or a size where the pool has no sizes.
        """
        _check_kind(body)
        source = body.get("source") or {}
        with self._db.reading() as session:
            place = self.store.place(session, project, pool, body.get("name", ""))
            taken = storage.volume(session, pool, place.project, "custom", place.name, state=None) is not None
        validate.volume_name(place.name, place.project)
        if source.get("name"):
            return self._start_copy(project, place, body, source, taken=taken)
        if taken:
            raise Conflict("Volume by that name already exists")
        config = self._with_defaults(pool, checked(body.get("config", {})))
        self.store.require_size(pool, config)
        with self.store.holding(place), self.store.made(place, body.get("description", ""), config) as row:
            self.store.trees.create(place)
            os.chmod(self.store.trees.path(place), _MODE)
            self.store.fit(place, config)
            self.store.finish(row)
        self.store.tell("created", place)
        return None

    def _with_defaults(self, pool: str, config: models.Config) -> models.Config:
        """Return a new volume's configuration with what its pool gives to volumes that do not say otherwise."""
        with self._db.reading() as session:
            of_pool = storage.pool(session, pool).config
        prefix = "volume."
        return {key.removeprefix(prefix): value for key, value in of_pool.items() if key.startswith(prefix)} | config

    def _start_copy(
        self, project: str, place: Place, body: StorageVolumesPost, source: StorageVolumeSource, *, taken: bool
    ) -> Operation:
        name, _, snapshot = source["name"].partition("/")
        found = self.store.find(source.get("project") or project, source.get("pool") or place.pool, name)
        with self._db.reading() as session:
            row = load(session, found)
            kept = volumes.snapshot(session, row.id, snapshot) if snapshot else row
        if taken and not source.get("refresh"):
            raise Conflict("Volume by that name already exists", hint="--refresh brings it up to date")
        if taken and place == found:
            raise BadRequest("A volume cannot be refreshed from itself")
        whole = not (snapshot or source.get("volume_only"))
        description = body.get("description") or kept.description
        config = checked(body.get("config", kept.config))
        self.store.require_size(place.pool, config)

        def run(_operation: Operation) -> None:
            with self.store.holding(place, shared=[found]):
                if taken:
                    self._copier.refresh(found.at(snapshot), place, whole=whole)
                else:
                    self._copier.copy(found.at(snapshot), place, description, config, whole=whole)
            self.store.tell("updated" if taken else "created", place)

        return self._operations.start("Copying storage volume", run, project=project, resources=resources(place))

    # Changing

    def update(
        self,
        project: str,
        pool: str,
        name: str,
        body: StorageVolumePut,
        *,
        patch: bool = False,
        if_match: str | None = None,
    ) -> None:
        """Replace a volume's configuration and description, with `patch` only what is given; with `restore` go back.

        Raises:
            NotFound: there is no such volume or snapshot.
            BadRequest: an unknown or malformed key, or a change that instances which run with it do not allow.
            NotSupported: a size where the pool has no sizes.
            PreconditionFailed: `if_match` is of another state.
        """
        place = self.store.find(project, pool, name)
        with self.store.holding(place):
            row = self.store.row(place)
            etag.check(if_match, *tagged(row.name, row.type, row.config))
            snapshot = body.get("restore", "")
            if snapshot:
                self._restore(place, snapshot)
            if "config" in body or not snapshot:
                self._change(place, row.config, body, patch=patch)

    def _change(self, place: Place, before: models.Config, body: StorageVolumePut, *, patch: bool) -> None:
        config = checked({**(before if patch else {}), **body.get("config", {})})
        if any(VOLUME.is_true(before, key) != VOLUME.is_true(config, key) for key in MAPPING):
            self.store.refuse_running(place, "Cannot modify shifting with running instances using the volume")
        with Reverter() as revert:
            if size_of(before) != size_of(config):
                revert.add(self.store.trees.set_size, place, size_of(before))
                self.store.trees.set_size(place, size_of(config))
            with self._db.transaction() as session:
                row = load(session, place)
                row.config = config
                admission.check(session, row.project)
                if "description" in body or not patch:
                    row.description = body.get("description", "")
            revert.success()
        self.store.tell("updated", place)

    def _restore(self, place: Place, snapshot: str) -> None:
        with self._db.transaction() as session:
            row = load(session, place)
            volumes.snapshot(session, row.id, snapshot)
            refuse_attached(session, place, "Cannot restore custom volume used by running instances")
            row.restoring = snapshot
        try:
            self._finish_restore(place, snapshot)
        except BaseException:
            self._set_restoring(place, "")
            raise
        self.store.tell("restored", place, {"snapshot": snapshot})

    def _finish_restore(self, place: Place, snapshot: str) -> None:
        self.store.trees.restore(place, snapshot)
        self._set_restoring(place, "")

    def _set_restoring(self, place: Place, snapshot: str) -> None:
        with self._db.transaction() as session:
            load(session, place).restoring = snapshot

    def rename(self, project: str, pool: str, name: str, body: StorageVolumePost) -> Operation | Place:
        """Rename a volume and return its new place, or start moving it to another pool or project.

        Instances and profiles that have it follow.

        Raises:
            NotFound: there is no such volume, pool or project.
            BadRequest: a malformed name, or instances run with it.
            Conflict: the new name is taken.
            NotSupported: it is to go to another server.
        """
        if body.get("migration"):
            raise NotSupported("Volumes cannot be copied or moved to another server")
        place = self.store.find(project, pool, name)
        with self._db.reading() as session:
            to_project, to_pool = body.get("project") or project, body.get("pool") or pool
            new = self.store.place(session, to_project, to_pool, body.get("name", ""))
            validate.volume_name(new.name, new.project)
            self._mover.check(session, place, new)
        if (new.pool, new.project) == (place.pool, place.project):
            with self.store.holding(place, new):
                self._mover.rename(place, new)
            self.store.tell("renamed", new, {"old_name": place.name})
            return new

        def run(_operation: Operation) -> None:
            with self.store.holding(place, new):
                self._mover.move(place, new)
            self.store.tell("renamed", new, {"old_name": place.name, "old_pool": place.pool})

        return self._operations.start("Moving storage volume", run, project=project, resources=resources(new))

    def delete(self, project: str, pool: str, name: str) -> None:
        """Delete a volume with its snapshots.

        Raises:
            NotFound: there is none.
            BadRequest: an instance or a profile has it.
        """
        place = self.store.find(project, pool, name)
        with self.store.holding(place):
            with self._db.transaction() as session:
                row = load(session, place)
                if volumes.users(session).get(name_of(place)) or volumes.attached(session, name_of(place)):
                    raise BadRequest("The storage volume is still in use")
                row.state = "deleting"
            self.store.remove(row)
        self.store.tell("deleted", place)

    # The daemon's

    def reconcile(self, _pool: str = "") -> None:
        """Finish the renames and restores that a dead daemon left; call before instances are seen to.

        What is in pools that cannot be used is left until they are back.
        """
        with self._db.reading() as session:
            left = [(place_of(row), row.new_name) for row in volumes.unsettled(session)]
        for place, new in left:
            log.warning("Finishing the change of volume %s of pool %s, begun by a daemon", place.name, place.pool)
            try:
                with self.store.holding(place, *([replace(place, name=new)] if new else [])):
                    self._finish(place)
            except PylxcError as error:
                log.error("Failed changing volume %s of pool %s: %s", place.name, place.pool, error)

    def _finish(self, place: Place) -> None:
        """Finish what is under way of a volume; if that is done meanwhile, nothing."""
        row = self.store.row(place)
        if row.new_name:
            self._mover.finish_rename(place, row.new_name)
        elif row.restoring:
            self._finish_restore(place, row.restoring)


def _check_kind(body: StorageVolumesPost) -> None:
    if body.get("type", "custom") != "custom":
        raise BadRequest(f"Currently not allowed to create storage volumes of type {body['type']!r}")
    content = body.get("content_type") or "filesystem"
    if content == "block":
        raise NotSupported("Block volumes are not supported", hint="use content type filesystem")
    if content != "filesystem":
        raise BadRequest(f"Invalid content type {content!r}", hint="filesystem")
    kind = (body.get("source") or {}).get("type", "")
    if kind == "migration":
        raise NotSupported("Copying volumes from another server is not supported")
    if kind not in ("", "copy"):
        raise BadRequest(f"Unknown source type {kind!r}", hint="copy")
