"""Moving instances to another storage pool, project or name; any of these at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from pylxc.db import instances, profiles, projects, storage
from pylxc.db import snapshots as rows
from pylxc.db.engine import Database
from pylxc.db.models import Devices, Instance, Profile
from pylxc.errors import BadRequest
from pylxc.revert import Reverter
from pylxc.services.events import EventBus
from pylxc.services.instances import checks, duplicates, root_size
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import (
    INSTANCE_ID,
    Record,
    expand_config,
    expand_devices,
    record,
    root_disk,
    with_root,
)
from pylxc.services.instances.remove import check_free
from pylxc.services.instances.templates import deferred
from pylxc.services.projects import admission
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Where an instance goes.

    Attributes:
        pool: the storage pool.
        project: the project.
        name: what it is called there.
        alone: its snapshots are given up.
    """

    pool: str
    project: str
    name: str
    alone: bool = False


class Mover:
    """Moves instances that do not run; the caller holds their locks, and those of their new names. Thread-safe.

    Args:
        forget: takes from the host what it has of an instance under its former name.
    """

    def __init__(
        self,
        db: Database,
        storage: StoragePools,
        devices: DeviceManager,
        events: EventBus,
        forget: Callable[[Record, Record], None],
    ) -> None:
        self._db = db
        self._events = events
        self._storage = storage
        self._devices = devices
        self._forget = forget

    def check(self, found: Record, to: Move) -> None:
        """Check that an instance can go where it shall.

        Raises:
            NotFound: there is no such pool or project, or that has no such profile.
            BadRequest: it is there, the new name is none, or a device cannot be had there.
            Conflict: the new name is taken.
            Forbidden: the project does not allow it.
            NotSupported: the root disk has a size, and that pool cannot limit it.
        """
        self._storage.get(to.pool)
        if (to.pool, to.project, to.name) == (found.pool, found.project, found.name):
            raise BadRequest(f"Instance {found.name!r} is in storage pool {to.pool!r} already")
        if to.pool != found.pool and root_size.wanted(found.expanded_devices):
            self._storage.volumes.require_sizes(to.pool)
        if (to.project, to.name) == (found.project, found.name):
            return
        with self._db.reading() as session:
            owner = projects.get(session, to.project)
            check_free(instances.claimed(session, to.project), to.name)
            if to.project != found.project:
                kept = profiles.named(session, projects.scope(owner, "profiles"), found.profiles)
                devices = self._devices_there(found, to, kept)
                there = replace(
                    found,
                    project=to.project,
                    name=to.name,
                    devices=devices,
                    expanded_config=expand_config(kept, found.config),
                    expanded_devices=expand_devices(kept, devices),
                )
                checks.config(there.expanded_config)
                self._devices.validate(devices, to.project)
                admission.check(session, owner, instead=[there])

    def _devices_there(self, found: Record, to: Move, kept: list[Profile]) -> Devices:
        """Return an instance's own devices as they have to be, with these profiles."""
        devices = with_root(found.devices, expand_devices(kept, found.devices), found.expanded_devices)
        name, root = root_disk(expand_devices(kept, devices))
        return devices if root.get("pool") == to.pool else {**devices, name: {**root, "pool": to.pool}}

    def move(self, found: Record, to: Move) -> None:
        """Copy an instance's volume and its snapshots' to where it goes, then use these.

        The new volumes count from one moment on: with the change of the row the old ones are given up.

        Raises:
            Internal: no space left; all is as it was. And like `check`.
        """
        self.check(found, to)
        volumes, place = self._storage.volumes, Place(found.pool, found.project, found.name)
        with self._db.reading() as session:
            snapshots = [row.name for row in rows.of_instances(session, [found.id]).get(found.id, [])]
        with Reverter() as revert:
            revert.add(volumes.delete_instance, to.pool, to.project, to.name)
            volumes.copy_instance(
                place,
                to.pool,
                to.project,
                to.name,
                size=root_size.wanted(found.expanded_devices),
                snapshots=() if to.alone else snapshots,
                counts=False,
            )
            volumes.flush(to.pool)  # the old ones go
            with self._db.transaction() as session:
                there = self._rewrite(session, found, to)
            revert.success()
        volumes.delete_instance(place.pool, place.project, place.name)
        if there.key != found.key:
            self._forget(found, there)
        self._tell(found, to)

    def _rewrite(self, session: Session, found: Record, to: Move) -> Record:
        """Have an instance be where it goes, within a transaction."""
        row = instances.get(session, found.project, found.name)
        if (to.project, to.name) != (found.project, found.name):
            check_free(instances.claimed(session, to.project), to.name)
        owner = projects.get(session, to.project)
        kept = profiles.named(session, projects.scope(owner, "profiles"), found.profiles)
        row.devices = self._devices_there(found, to, kept)
        instances.set_profiles(session, row, kept)
        row.project, row.name = owner, to.name
        if to.name != found.name:
            row.config = {**deferred(row.config, "rename"), INSTANCE_ID: str(uuid.uuid4())}
        if to.alone:
            for snapshot in rows.of_instances(session, [row.id]).get(row.id, []):
                session.delete(snapshot)
        session.flush()
        if to.project != found.project:
            self._settle(session, row)
        for pool, project, name, state in (
            (found.pool, found.project, found.name, "deleting"),
            (to.pool, to.project, to.name, "created"),
        ):
            volume = storage.volume(session, pool, project, "container", name, state=None)
            if volume is not None:
                volume.state = state
        return record(row)

    def _settle(self, session: Session, row: Instance) -> None:
        """Check an instance in its new project, and give it the volatile keys that it lacks there."""
        there = record(row)
        checks.config(there.expanded_config)
        duplicates.refuse(session, there)
        row.config = {
            **row.config,
            **self._devices.volatile(there.name, there.expanded_devices, there.expanded_config),
        }
        admission.check(session, row.project)

    def _tell(self, found: Record, to: Move) -> None:
        """Announce a move: one to another project is the end of an instance here and the beginning of one there."""
        source = f"/1.0/instances/{to.name}"
        if to.name != found.name and to.project == found.project:
            context = {"old_name": found.name}
            self._events.lifecycle("instance-renamed", source, project=to.project, context=context)
        elif to.project != found.project:
            self._events.lifecycle("instance-deleted", f"/1.0/instances/{found.name}", project=found.project)
            context = {"type": found.type, "location": "none", "storage-pool": to.pool}
            self._events.lifecycle("instance-created", source, project=to.project, context=context)
        if to.pool != found.pool:
            self._events.lifecycle("instance-updated", source, project=to.project, context={"pool": to.pool})
