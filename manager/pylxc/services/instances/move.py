"""Moving instances to another storage pool."""

from __future__ import annotations

from pylxc.db import instances, storage
from pylxc.db import snapshots as rows
from pylxc.db.engine import Database
from pylxc.errors import BadRequest
from pylxc.revert import Reverter
from pylxc.services.instances import root_size
from pylxc.services.instances.expand import Record, root_disk
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools


class Mover:
    """Moves instances that do not run; the caller holds their locks. Thread-safe."""

    def __init__(self, db: Database, storage: StoragePools) -> None:
        self._db = db
        self._storage = storage

    def check(self, found: Record, pool: str) -> None:
        """Check that an instance can go to `pool`.

        Raises:
            NotFound: there is no such pool.
            BadRequest: it is there.
            NotSupported: the root disk has a size, and that pool cannot limit it.
        """
        self._storage.get(pool)
        if pool == found.pool:
            raise BadRequest(f"Instance {found.name!r} is in storage pool {pool!r} already")
        if root_size.wanted(found.expanded_devices):
            self._storage.volumes.require_sizes(pool)

    def move(self, found: Record, pool: str) -> None:
        """Copy an instance's volume and its snapshots' to `pool`, then use these; raises Internal.

        The new volumes count from one moment on: with the change of the root disk the old ones are given up.
        """
        volumes, old = self._storage.volumes, found.pool
        with self._db.reading() as session:
            snapshots = [row.name for row in rows.of_instances(session, [found.id]).get(found.id, [])]
        with Reverter() as revert:
            revert.add(volumes.delete_instance, pool, found.project, found.name)
            place, size = Place(old, found.project, found.name), root_size.wanted(found.expanded_devices)
            volumes.copy_instance(place, pool, found.project, found.name, size=size, snapshots=snapshots, counts=False)
            with self._db.transaction() as session:
                row = instances.get(session, found.project, found.name)
                name, root = root_disk(found.expanded_devices)
                row.devices = {**row.devices, name: {**root, "pool": pool}}
                for where, state in ((old, "deleting"), (pool, "created")):
                    volume = storage.volume(session, where, found.project, "container", found.name, state=None)
                    if volume is not None:
                        volume.state = state
            revert.success()
        volumes.delete_instance(old, found.project, found.name)
