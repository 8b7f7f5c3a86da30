"""Snapshots of instances: taken, renamed, deleted, gone back to."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from pylxc import validate
from pylxc.config.instance import INSTANCE
from pylxc.db import instances, profiles, projects
from pylxc.db import snapshots as rows
from pylxc.db.engine import Database
from pylxc.db.models import Config, Devices, Profile, Snapshot, now
from pylxc.errors import Conflict, NotSupported
from pylxc.revert import Reverter
from pylxc.services import etag, expiry, snapshot_names
from pylxc.services.events import EventBus
from pylxc.services.instances import checks, duplicates, root_size
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import (
    Record,
    expand_config,
    expand_devices,
    is_root_disk,
    load,
    lost_devices,
    record,
    root_disk,
)
from pylxc.services.instances.leftovers import Leftovers
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.operations import Operation, Operations
from pylxc.services.projects import admission
from pylxc.services.rendering.renderer import Renderer
from pylxc.services.storage.service import StoragePools
from pylxc.wire.instances import InstanceSnapshot, InstanceSnapshotPost, InstanceSnapshotPut, InstanceSnapshotsPost
from pylxc.wire.times import NEVER, timestamp

log = logging.getLogger(__name__)


def url(project: str, name: str, snapshot: str) -> str:
    """Return a snapshot's URL as operations and lists have it."""
    suffix = "" if project == "default" else f"?project={project}"
    return f"/1.0/instances/{name}/snapshots/{snapshot}{suffix}"


class Snapshots:
    """Snapshots; thread-safe.

    A snapshot's row is there before its volume and goes after it: whatever a killed daemon leaves has a row whose
    state says what to do with it, see `reconcile`.
    """

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        db: Database,
        storage: StoragePools,
        devices: DeviceManager,
        operations: Operations,
        events: EventBus,
        locks: InstanceLocks,
        lifecycle: Lifecycle,
        renderer: Renderer,
        left: Leftovers,
    ) -> None:
        self._db = db
        self._storage = storage
        self._devices = devices
        self._operations = operations
        self._events = events
        self._locks = locks
        self._lifecycle = lifecycle
        self._renderer = renderer
        self._left = left

    # Reading

    def of(self, records: Iterable[Record]) -> dict[str, list[InstanceSnapshot]]:
        """Return the snapshots of instances by the instances' keys, oldest first."""
        by_id = {found.id: found for found in records}
        with self._db.reading() as session:
            found = rows.of_instances(session, by_id)
            shared = {project: _profiles(session, project) for project in {by_id[i].project for i in found}}
        return {by_id[i].key: [_render(row, shared[by_id[i].project]) for row in of] for i, of in found.items()}

    def list(self, project: str, name: str) -> list[InstanceSnapshot]:
        """Return an instance's snapshots, oldest first; raises NotFound."""
        found = self._record(project, name)
        return self.of([found]).get(found.key, [])

    def get(self, project: str, name: str, snapshot: str) -> tuple[InstanceSnapshot, str]:
        """Return a snapshot and its entity tag; raises NotFound."""
        with self._db.reading() as session:
            load(session, project, name)
            rendered = _render(rows.get(session, project, name, snapshot), _profiles(session, project))
        return rendered, etag.etag(rendered["expires_at"])

    def _record(self, project: str, name: str) -> Record:
        with self._db.reading() as session:
            return load(session, project, name)

    # Taking

    def create(self, project: str, name: str, body: InstanceSnapshotsPost) -> Operation:
        """Start taking a snapshot of an instance, running or not.

        Raises:
            NotFound: there is no such instance.
            BadRequest: a malformed name or time.
            Conflict: the name is taken.
            Forbidden: the project allows no snapshots.
            NotSupported: one with the memory of what runs.
        """
        if body.get("stateful"):
            raise NotSupported("Stateful snapshots are not supported")
        found = self._record(project, name)
        snapshot = body.get("name") or self.next_name(found)
        validate.snapshot_name(snapshot)
        expires_at = self._expiry(found, body)
        with self._db.reading() as session:
            admission.refuse_snapshots(session, project)
            _check_free(rows.claimed(session, found.id), name, snapshot)
        return self._operations.start(
            "Snapshotting instance",
            lambda _operation: self.take(project, name, snapshot, expires_at),
            project=project,
            resources={
                "instances": [f"/1.0/instances/{name}"],
                "instances_snapshots": [url(project, name, snapshot)],
            },
        )

    def next_name(self, found: Record) -> str:
        """Return the name that the instance's pattern gives to its next snapshot.

        Raises:
            BadRequest: the pattern makes no name.
        """
        with self._db.reading() as session:
            taken = rows.claimed(session, found.id)
        pattern = INSTANCE.value(found.expanded_config, "snapshots.pattern")

        def render(source: str, variables: Mapping[str, Any]) -> str:
            return self._renderer.render([("snapshots.pattern", source, variables)])[0]

        return snapshot_names.following(pattern, taken, now(), render)

    def _expiry(self, found: Record, body: InstanceSnapshotsPost) -> dt.datetime | None:
        text = body.get("expires_at")
        if text is not None:
            return expiry.given(text)
        return expiry.after(now(), found.expanded_config.get("snapshots.expiry", ""))

    def take(
        self, project: str, name: str, snapshot: str, expires_at: dt.datetime | None, *, wait: float = 0.0
    ) -> None:
        """Take a snapshot; raises as `create` does, and Internal when the pool is full.

        Args:
            project: of the instance.
            name: of the instance.
            snapshot: its name.
            expires_at: when it is deleted, None for never.
            wait: seconds for which the instance may be busy.
        """
        found = self._record(project, name)
        with self._locks.hold(found.key, "snapshot", wait=wait), Reverter() as revert:
            found = self._record(project, name)
            freezes = self._lifecycle.changes_while_copied(found)
            self._add(found, snapshot, expires_at)
            revert.add(self._drop, found, snapshot)
            with self._lifecycle.frozen(found.key) if freezes else nullcontext():
                self._storage.volumes.create_snapshot(found.pool, project, name, snapshot)
            with self._db.transaction() as session:
                rows.get(session, project, name, snapshot, state="creating").state = "created"
            revert.success()
        self._tell("created", project, name, snapshot)

    def _add(self, found: Record, snapshot: str, expires_at: dt.datetime | None) -> None:
        with self._db.transaction() as session:
            row = instances.get(session, found.project, found.name)
            admission.refuse_snapshots(session, found.project)
            _check_free(rows.claimed(session, row.id), found.name, snapshot)
            session.add(
                Snapshot(
                    instance_id=row.id,
                    name=snapshot,
                    architecture=row.architecture,
                    description=row.description,
                    config=row.config,
                    devices=row.devices,
                    profiles=list(found.profiles),
                    ephemeral=row.ephemeral,
                    expires_at=expires_at,
                )
            )

    # Changing

    def update(
        self, project: str, name: str, snapshot: str, body: InstanceSnapshotPut, if_match: str | None
    ) -> Operation:
        """Start changing when a snapshot expires.

        Raises:
            NotFound: there is none.
            BadRequest: no time.
            PreconditionFailed: `if_match` is of another state.
        """
        found, _ = self.get(project, name, snapshot)
        etag.check(if_match, found["expires_at"])
        moment = expiry.given(body["expires_at"]) if "expires_at" in body else expiry.given(found["expires_at"])

        def run(_operation: Operation) -> None:
            with self._db.transaction() as session:
                row = rows.get(session, project, name, snapshot)
                etag.check(if_match, timestamp(row.expires_at))
                row.expires_at = moment
            self._tell("updated", project, name, snapshot)

        return self._start("Updating snapshot", project, name, snapshot, run)

    def rename(self, project: str, name: str, snapshot: str, body: InstanceSnapshotPost) -> Operation:
        """Start renaming a snapshot.

        Raises:
            NotFound: there is none.
            BadRequest: the new name is none.
            Conflict: the new name is taken.
            NotSupported: it is to go to another server.
        """
        if body.get("migration"):
            raise NotSupported("Migrating snapshots is not supported")
        new = body.get("name", "")
        validate.snapshot_name(new)
        found = self._record(project, name)
        self.get(project, name, snapshot)
        with self._db.reading() as session:
            _check_free(rows.claimed(session, found.id), name, new)

        def run(_operation: Operation) -> None:
            with self._locks.hold(found.key, "snapshot rename"):
                self._storage.driver(found.pool)
                with self._db.transaction() as session:
                    _check_free(rows.claimed(session, found.id), name, new)
                    rows.get(session, project, name, snapshot).new_name = new
                self._finish_rename(found, snapshot, new)
            self._tell("renamed", project, name, new, {"old_name": snapshot})

        return self._start("Renaming snapshot", project, name, snapshot, run)

    def _finish_rename(self, found: Record, snapshot: str, new: str) -> None:
        self._storage.volumes.rename_snapshot(found.pool, found.project, found.name, snapshot, new)
        with self._db.transaction() as session:
            row = rows.get(session, found.project, found.name, snapshot)
            row.name, row.new_name = new, ""

    def delete(self, project: str, name: str, snapshot: str) -> Operation:
        """Start deleting a snapshot; raises NotFound."""
        found = self._record(project, name)
        self.get(project, name, snapshot)

        def run(_operation: Operation) -> None:
            self.remove(found, snapshot)

        return self._start("Deleting snapshot", project, name, snapshot, run)

    def remove(self, found: Record, snapshot: str, *, wait: float = 0.0) -> None:
        """Delete a snapshot, of a busy instance within `wait` seconds; one that could not be is shown as before.

        Raises:
            NotFound: there is none.
            Conflict: its instance is busy.
            Unavailable: its storage pool cannot be used.
        """
        with self._locks.hold(found.key, "snapshot delete", wait=wait):
            self._storage.driver(found.pool)
            with self._db.transaction() as session:
                rows.get(session, found.project, found.name, snapshot).state = "deleting"
            with Reverter() as revert:
                revert.add(self._show, found, snapshot)
                self._drop(found, snapshot)
                revert.success()
        self._tell("deleted", found.project, found.name, snapshot)

    def _show(self, found: Record, snapshot: str) -> None:
        with self._db.transaction() as session:
            rows.get(session, found.project, found.name, snapshot, state="deleting").state = "created"

    def _drop(self, found: Record, snapshot: str) -> None:
        self._storage.volumes.delete_snapshot(found.pool, found.project, found.name, snapshot)
        with self._db.transaction() as session:
            session.delete(rows.get(session, found.project, found.name, snapshot, state=None))

    # Going back

    def check_restore(self, project: str, name: str, snapshot: str) -> None:
        """Check what can be checked before `restore`: what came with a backup nobody has looked at so far.

        Raises:
            NotFound: there is no such snapshot, or a profile or volume of it is gone.
            BadRequest: what the instance was is invalid, or cannot be had any more.
            Forbidden: the project does not allow what the instance was.
            NotSupported: this server does not do what the instance was.
        """
        with self._db.reading() as session:
            row = rows.get(session, project, name, snapshot)
            owner = projects.get(session, project)
            kept = profiles.named(session, projects.scope(owner, "profiles"), row.profiles)
            present = load(session, project, name)
            devices = _with_present_root(row.devices, expand_devices(kept, row.devices), present)
            self._devices.validate(devices, project)
            back = replace(
                present,
                expanded_config=expand_config(kept, row.config),
                expanded_devices=expand_devices(kept, devices),
            )
            root_disk(back.expanded_devices)
            checks.config(back.expanded_config)
            duplicates.refuse(session, back)
            admission.check(session, owner, instead=[back])

    def restore(self, project: str, name: str, snapshot: str) -> None:
        """Make an instance what it was; one that runs is stopped by force and started again.

        Raises:
            NotFound: there is no such snapshot, or a profile of it is gone.
            Conflict: the instance is busy.
            Internal: the pool is full; the instance is as it was.
        """
        found = self._record(project, name)
        with self._locks.hold(found.key, "restore"):
            self.check_restore(project, name, snapshot)
            self._storage.driver(found.pool)
            with Reverter() as revert:
                # First of all: should the daemon die, the next one finishes it, and starts what ran.
                self._mark_restoring(found, snapshot)
                revert.add(self._mark_restoring, found, "")
                with self._lifecycle.stopped(project, name):
                    self._storage.volumes.restore_snapshot(found.pool, project, name, snapshot)
                    self._finish_restore(project, name, snapshot)
                revert.success()
        self._events.lifecycle(
            "instance-restored", f"/1.0/instances/{name}", project=project, context={"snapshot": snapshot}
        )

    def _mark_restoring(self, found: Record, snapshot: str) -> None:
        with self._db.transaction() as session:
            instances.get(session, found.project, found.name).restoring = snapshot

    def _finish_restore(self, project: str, name: str, snapshot: str) -> None:
        with self._db.transaction() as session:
            row = instances.get(session, project, name)
            before, source = record(row), rows.get(session, project, name, snapshot)
            row.restoring = ""
            row.architecture, row.description, row.ephemeral = source.architecture, source.description, source.ephemeral
            row.config = restored_config(source.config, row.config)
            kept = profiles.named(session, projects.scope(row.project, "profiles"), source.profiles)
            instances.set_profiles(session, row, kept)
            row.devices = _with_present_root(source.devices, expand_devices(kept, source.devices), before)
            after = record(row)
        root_size.settle(self._storage.volumes, after)
        lost = lost_devices(before.expanded_devices, after.expanded_devices)
        self._devices.remove(project, after.name, lost, before.config)

    # The daemon's

    def reconcile(self) -> None:
        """Finish or undo what a dead daemon left; call once at start, when pools and runtime are up."""
        with self._db.reading() as session:
            left = [(record(row.instance), row.name, row.new_name, row.state) for row in rows.unsettled(session)]
            restores = [(record(row), row.restoring) for row in instances.restoring(session)]
        for found, snapshot, new, state in left:
            log.warning("Clearing up snapshot %s/%s, left %s by a daemon that died", found.key, snapshot, state)
            finish = partial(self._drop, found, snapshot)
            if state == "created":
                finish = partial(self._finish_rename, found, snapshot, new)
            self._left.do(found.key, finish)
        for found, snapshot in restores:
            log.warning("Restoring instance %s to snapshot %s, which a daemon that died had begun", found.key, snapshot)
            self._left.do(found.key, partial(self._restore, found, snapshot))

    def _restore(self, found: Record, snapshot: str) -> None:
        if self._lifecycle.status(found.key) != "Stopped":
            self._mark_restoring(found, "")  # it had not come to that
            return
        self._storage.volumes.restore_snapshot(found.pool, found.project, found.name, snapshot)
        self._finish_restore(found.project, found.name, snapshot)

    def _start(self, description: str, project: str, name: str, snapshot: str, run: Any) -> Operation:
        resources = {"instances": [f"/1.0/instances/{name}"], "instances_snapshots": [url(project, name, snapshot)]}
        return self._operations.start(description, run, project=project, resources=resources)

    def _tell(self, verb: str, project: str, name: str, snapshot: str, context: dict[str, str] | None = None) -> None:
        source = f"/1.0/instances/{name}/snapshots/{snapshot}"
        self._events.lifecycle(f"instance-snapshot-{verb}", source, project=project, context=context)


def _check_free(taken: set[str], name: str, snapshot: str) -> None:
    if snapshot in taken:
        raise Conflict(f'Snapshot "{name}/{snapshot}" already exists')


def _with_present_root(devices: Devices, expanded: Devices, present: Record) -> Devices:
    """Return a snapshot's own devices with the root disk where the instance's tree is now.

    It may have moved since, or be a copy in another pool.

    Args:
        devices: the snapshot's.
        expanded: with those of its profiles.
        present: the instance.
    """
    name, root = root_disk(present.expanded_devices)
    name = next((each for each, device in expanded.items() if is_root_disk(device)), name)
    if expanded.get(name, {}).get("pool") == root["pool"]:
        return devices
    return {**devices, name: dict(root)}


def restored_config(then: Config, present: Config) -> Config:
    """Return the former configuration with what only the present knows.

    That is whether it ran, its id maps and its identity: a copy has snapshots of what it is a copy of, whose MAC
    addresses are not its own.
    """
    kept = ("volatile.last_state.", "volatile.idmap.", "volatile.uuid")
    config = {key: value for key, value in then.items() if not key.startswith((*kept, "volatile.apply_template"))}
    addresses = {key for key in config if key.startswith("volatile.") and key.endswith(".hwaddr")}
    return config | {key: value for key, value in present.items() if key.startswith(kept) or key in addresses}


def _profiles(session: Session, project: str) -> dict[str, Profile]:
    scope = projects.scope_name(session, project, "profiles")
    return {profile.name: profile for profile in profiles.of_project(session, scope)}


def _render(row: Snapshot, known: Mapping[str, Profile]) -> InstanceSnapshot:
    """Return a snapshot as the wire has it, expanded by those of its profiles that still exist."""
    there = [known[name] for name in row.profiles if name in known]
    return {
        "name": row.name,
        "architecture": row.architecture,
        "config": row.config,
        "created_at": timestamp(row.created_at),
        "devices": row.devices,
        "ephemeral": row.ephemeral,
        "expanded_config": expand_config(there, row.config),
        "expanded_devices": expand_devices(there, row.devices),
        "expires_at": timestamp(row.expires_at),
        "last_used_at": NEVER,
        "profiles": list(row.profiles),
        "size": -1,
        "stateful": row.stateful,
    }
