"""Deleting and renaming instances, and what a dead daemon left of either."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from functools import partial

from pylxc import validate
from pylxc.db import instances
from pylxc.db.engine import Database
from pylxc.errors import Conflict
from pylxc.paths import Paths, storage_name
from pylxc.revert import Reverter
from pylxc.services.events import EventBus
from pylxc.services.instances.apparmor import AppArmor
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import INSTANCE_ID, Record, is_root_disk, load, record
from pylxc.services.instances.leftovers import Leftovers
from pylxc.services.instances.templates import deferred
from pylxc.services.storage.service import StoragePools

log = logging.getLogger(__name__)


class Remover:
    """Deletes and renames instances that do not run; the caller holds their locks. Thread-safe."""

    def __init__(
        self,
        db: Database,
        paths: Paths,
        storage: StoragePools,
        devices: DeviceManager,
        apparmor: AppArmor,
        events: EventBus,
        left: Leftovers,
    ) -> None:
        self._db = db
        self._paths = paths
        self._storage = storage
        self._devices = devices
        self._apparmor = apparmor
        self._events = events
        self._left = left

    def delete(self, found: Record) -> None:
        """Delete an instance with its volume and logs; one that could not be is shown as before.

        Raises:
            Unavailable: its storage pool cannot be used.
            Internal: it failed otherwise. Deleting it once more goes on from there.
        """
        self._storage.driver(found.pool)
        with self._db.transaction(outlives_host=False) as session:  # its volume's row takes it along
            instances.set_state(session, found.id, "deleting")
        with Reverter() as revert:
            revert.add(self._show, found)
            self._finish_delete(found)
            revert.success()
        self._events.lifecycle("instance-deleted", f"/1.0/instances/{found.name}", project=found.project)

    def _show(self, found: Record) -> None:
        with self._db.transaction() as session:
            instances.set_state(session, found.id, "created")

    def discard(self, found: Record) -> None:
        """Undo a create: remove what there is of an instance that nobody has seen."""
        self._finish_delete(found)

    def rename(self, project: str, name: str, new: str) -> None:
        """Rename an instance.

        Raises:
            NotFound: there is none.
            Conflict: the new name is taken.
            Unavailable: its storage pool cannot be used.
        """
        with self._db.reading() as session:
            pool = load(session, project, name).pool
        self._storage.driver(pool)
        with self._db.transaction() as session:
            row = instances.get(session, project, name)
            check_free(instances.claimed(session, project), new)
            row.new_name = new
            found = record(row)
        with Reverter() as revert:
            revert.add(self._keep_name, found)
            self._rename_volume(found, new)
            revert.success()
        self._take_name(found, new)
        self._events.lifecycle("instance-renamed", f"/1.0/instances/{new}", project=project, context={"old_name": name})

    def reconcile(self) -> None:
        """Finish the deletes and renames, and undo the creates, that a dead daemon left; call once at start."""
        with self._db.reading() as session:
            rows = [(record(row), row.state, row.new_name) for row in instances.unsettled(session)]
        for found, state, new_name in rows:
            what = state if state != "created" else "renaming"
            log.warning("Clearing up instance %s, left %s by a daemon that died", found.key, what)
            finish = partial(self._finish_delete, found)
            if state == "created":
                finish = partial(self._finish_rename, found, new_name)
            self._left.do(found.key, finish)

    def _finish_delete(self, found: Record) -> None:
        self._devices.remove(found.project, found.name, found.expanded_devices, found.config)
        pools = {
            device["pool"] for device in found.expanded_devices.values() if is_root_disk(device) and device.get("pool")
        }
        for pool in pools:
            self._storage.volumes.delete_instance(pool, found.project, found.name)
        shutil.rmtree(self._paths.instance_logs(found.key), ignore_errors=True)
        self._apparmor.remove(found.key)
        with self._db.transaction(outlives_host=False) as session:  # what is lost is deleted once more
            instances.remove(session, found.id)

    def _finish_rename(self, found: Record, new: str) -> None:
        self._rename_volume(found, new)
        self._take_name(found, new)

    def _rename_volume(self, found: Record, new: str) -> None:
        self._devices.remove(found.project, found.name, found.expanded_devices, found.config)
        self._storage.volumes.rename_instance(found.pool, found.project, found.name, new)

    def _keep_name(self, found: Record) -> None:
        with self._db.transaction() as session:
            instances.get(session, found.project, found.name).new_name = ""

    def forget(self, found: Record, there: Record) -> None:
        """Take from the host what it has of a stopped instance that has another name or project now; logs follow."""
        self._devices.remove(found.project, found.name, found.expanded_devices, found.config)
        self._follow(found, there.key)

    def _follow(self, found: Record, key: str) -> None:
        """Let go of the former name, and have the logs under the new one."""
        self._apparmor.remove(found.key)
        logs = self._paths.instance_logs(found.key)
        if os.path.isdir(logs):
            target = self._paths.instance_logs(key)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(logs, target)

    def _take_name(self, found: Record, new: str) -> None:
        self._follow(found, storage_name(found.project, new))
        with self._db.transaction() as session:
            row = instances.get(session, found.project, found.name)
            row.name, row.new_name = new, ""
            row.config = {**deferred(row.config, "rename"), INSTANCE_ID: str(uuid.uuid4())}


def check_free(claimed: set[str], name: str) -> None:
    """Check that an instance may be called `name`.

    Args:
        claimed: the names that are taken in its project.
        name: the wanted one.

    Raises:
        BadRequest: it is no name.
        Conflict: it is taken.
    """
    validate.instance_name(name)
    if name in claimed:
        raise Conflict(f'Instance "{name}" already exists')
