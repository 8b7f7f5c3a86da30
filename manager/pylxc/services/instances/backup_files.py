"""backup.yaml beside each instance's rootfs/: what `pylxc admin recover` finds it by when the database is lost.

A thread writes them half a second after what they say has changed, so that nobody waits for it. Each begins with a
line that identifies what it says: what a daemon did not come to write any more, the next one does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from pylxc.db import instances, profiles, projects, storage
from pylxc.db.engine import Database
from pylxc.db.models import Instance, InstanceProfile, Profile, Snapshot, StoragePool, StorageVolume
from pylxc.errors import PylxcError
from pylxc.services.backups import document
from pylxc.services.instances import backup_index
from pylxc.services.instances.expand import POWER, Record, is_of_run, record
from pylxc.services.instances.render import render
from pylxc.services.instances.snapshots import Snapshots
from pylxc.services.instances.volume_metadata import VolumeMetadata
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools

log = logging.getLogger(__name__)

_DELAY_SECONDS = 0.5
"""What changes meanwhile is written together, and a launch is over by then."""

_PAUSE_SECONDS = 0.01
"""Between two instances that are looked at after a start: what users ask for goes first."""

_MARK = b"# pylxc "

_Shared = Profile | StoragePool | StorageVolume


class BackupFiles:
    """Keeps every instance's backup.yaml; thread-safe."""

    def __init__(self, db: Database, storage: StoragePools, snapshots: Snapshots) -> None:
        self._db = db
        self._storage = storage
        self._snapshots = snapshots
        self._changed = threading.Condition()
        self._due: set[int] = set()
        self._shared: list[_Shared] = []
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="backup-files", daemon=True)

    def open(self) -> None:
        """Begin, with what another daemon did not come to write; call once at start."""
        self._db.watch(self._note)
        self._thread.start()

    def close(self) -> None:
        """Write what is due, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def mark(self, *ids: int) -> None:
        """Have the files of instances, by their rows' ids, brought up to date soon."""
        with self._changed:
            self._due.update(ids)
            self._changed.notify_all()

    def describe(self, found: Record, snapshots: Sequence[Any]) -> dict[str, Any]:
        """Return what a backup says about an instance and those of its snapshots that are in it; raises NotFound."""
        with self._db.reading() as session:
            scope = projects.scope_name(session, found.project, "profiles")
            used = [
                {"name": p.name, "description": p.description, "config": p.config, "devices": p.devices}
                for p in profiles.named(session, scope, found.profiles)
            ]
        volume = self._storage.listing.get(found.pool, found.project, "container", found.name)
        return backup_index.describe(
            render(found, "Stopped"),
            snapshots,
            pool={**self._storage.definition(found.pool), "used_by": []},
            volume={**volume, "used_by": []},
            profiles=used,
        )

    # What has changed

    def _note(self, rows: Collection[object]) -> None:
        ids: set[int] = set()
        for row in rows:
            if isinstance(row, Instance):
                ids.add(row.id)
            elif isinstance(row, Snapshot | InstanceProfile | instances.Touched):
                ids.add(row.instance_id)
        shared = [row for row in rows if isinstance(row, Profile | StoragePool | StorageVolume)]
        if ids or shared:
            with self._changed:
                self._due |= ids
                self._shared += shared
                self._changed.notify_all()

    def _users(self, rows: Collection[_Shared]) -> set[int]:
        """Return the ids of the instances that use profiles, storage pools, or volumes."""
        found: set[int] = set()
        with self._db.reading() as session:
            for row in rows:
                if isinstance(row, Profile):
                    found |= {user.id for user in instances.with_profile(session, row.id)}
                elif isinstance(row, StoragePool):
                    found |= set(storage.instances_in(session, row.id))
                elif row.type == "container":
                    found |= set(storage.instances_in(session, row.storage_pool_id, row.name))
        return found

    # Writing

    def _serve(self) -> None:
        with self._db.reading() as session:
            behind = instances.ids(session)
        for number in behind:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, _PAUSE_SECONDS):
                    break
            self._try(number)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._shared or self._closing)
                self._changed.wait_for(lambda: self._closing, _DELAY_SECONDS)
                due, self._due = self._due, set()
                shared, self._shared = self._shared, []
                if not due and not shared:
                    return
            for number in sorted(due | self._users(shared)):
                self._try(number)

    def _try(self, number: int) -> None:
        try:
            if not self._update(number) and not self._closing:
                self.mark(number)
        except PylxcError as error:
            log.warning("Cannot write an instance's backup.yaml: %s", error)
        except FileNotFoundError:
            log.debug("The volume of instance %d has gone, with its backup.yaml", number)
        except Exception:
            log.exception("Failed writing the backup.yaml of instance %d", number)

    def _update(self, number: int) -> bool:
        """Write an instance's file unless it says all; return False when its volume is being copied just now."""
        with self._db.reading() as session:
            row = session.get(Instance, number)
            if row is None or row.state != "created" or row.new_name:
                return True
            found = record(row)
        described = self.describe(_settled(found), self._snapshots.of([found]).get(found.key, []))
        says = json.dumps(described, sort_keys=True, ensure_ascii=False).encode()
        line = _MARK + hashlib.sha256(says).hexdigest().encode() + b"\n"
        place = Place(found.pool, found.project, found.name)
        with VolumeMetadata(self._storage.trees.path(place)) as files:
            if (files.backup() or b"").startswith(line):
                return True
            text = document.dump(described).encode()
            with self._storage.trees.writing(place) as is_free:
                if is_free:
                    files.write_backup(line + text)
                return is_free


def _settled(found: Record) -> Record:
    """Return a record without what changes whenever the instance runs."""
    config = {key: value for key, value in found.config.items() if not _is_passing(key)}
    expanded = {key: value for key, value in found.expanded_config.items() if not _is_passing(key)}
    return replace(found, config=config, expanded_config=expanded, last_used_at=None)


def _is_passing(key: str) -> bool:
    return is_of_run(key) or key in (POWER, "volatile.idmap.current")
