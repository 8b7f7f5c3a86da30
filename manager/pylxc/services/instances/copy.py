"""Copying instances: what a copy takes over, its volumes, and bringing a copy up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from pylxc.db import profiles, projects
from pylxc.db import snapshots as rows
from pylxc.db.engine import Database
from pylxc.db.models import Snapshot
from pylxc.errors import BadRequest, NotFound
from pylxc.paths import storage_name
from pylxc.revert import Reverter
from pylxc.services.instances import root_size
from pylxc.services.instances.expand import Record, expand_devices, load, with_root
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.templates import deferred
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools
from pylxc.wire.instances import InstancesPost

_BUSY_SECONDS = 60.0
"""How long a copy of something that an instance has waits for another operation on the instance."""

_KEPT = ("volatile.base_image", "volatile.last_state.idmap")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySource:
    """What is copied: an instance, or a snapshot of it. `is_consistent` keeps it still meanwhile."""

    instance: Record
    snapshot: str
    with_snapshots: bool
    is_consistent: bool

    @property
    def place(self) -> Place:
        """Where its volume is."""
        return Place(self.instance.pool, self.instance.project, self.instance.name, self.snapshot)


class Copier:
    """Copies instances; thread-safe.

    Args:
        refreshed: called with a copy whose tree has been replaced by another instance's.
    """

    def __init__(
        self,
        db: Database,
        storage: StoragePools,
        locks: InstanceLocks,
        lifecycle: Lifecycle,
        refreshed: Callable[[Record], None],
    ) -> None:
        self._db = db
        self._storage = storage
        self._locks = locks
        self._lifecycle = lifecycle
        self._refreshed = refreshed

    def find(self, project: str, source: dict[str, Any]) -> CopySource:
        """Return what a request's source of type "copy" names.

        Raises:
            BadRequest: it names nothing.
            NotFound: no such instance or snapshot.
        """
        name, _, snapshot = str(source.get("source") or "").partition("/")
        if not name:
            raise BadRequest("Must specify a source instance")
        with self._db.reading() as session:
            found = _load(session, source.get("project") or project, name)
            if snapshot:
                rows.get(session, found.project, name, snapshot)
        alone = bool(source.get("instance_only") or source.get("container_only") or snapshot)
        return CopySource(
            instance=found,
            snapshot=snapshot,
            with_snapshots=not alone,
            is_consistent=not source.get("allow_inconsistent"),
        )

    def complete(self, project: str, body: InstancesPost, source: CopySource) -> InstancesPost:
        """Return the body of a create in `project` with what the copy takes over where it is silent."""
        with self._db.reading() as session:
            kept = _facts(session, source)
        config = {
            key: value for key, value in kept["config"].items() if not key.startswith("volatile.") or key in _KEPT
        }
        complete: dict[str, Any] = {**body}
        complete["config"] = deferred({**config, **body.get("config", {})}, "copy")
        complete["devices"] = {**kept["devices"], **body.get("devices", {})}
        complete["architecture"] = body.get("architecture") or kept["architecture"]
        complete["description"] = body.get("description") or kept["description"]
        if body.get("profiles") is None:
            complete["profiles"] = kept["profiles"]
        if project != source.instance.project:
            with self._db.reading() as session:
                found = profiles.named(session, projects.scope_name(session, project, "profiles"), complete["profiles"])
            expanded = expand_devices(found, complete["devices"])
            complete["devices"] = with_root(complete["devices"], expanded, source.instance.expanded_devices)
        return complete  # type: ignore[return-value]

    def make(self, source: CopySource, target: Record) -> None:
        """Make the volumes of `target`, whose row is there, and its snapshots; raises Internal.

        What a failure leaves goes with the instance.
        """
        with self._still(source):
            size = root_size.wanted(target.expanded_devices)
            snapshots = self._snapshots_of(source.instance) if source.with_snapshots else []
            names = [snapshot.name for snapshot in snapshots]
            self._storage.volumes.copy_instance(
                source.place, target.pool, target.project, target.name, size=size, snapshots=names
            )
            if snapshots:
                with self._db.transaction(outlives_host=False) as session:  # the instance's end takes them along
                    session.add_all(_duplicate(snapshot, target, "created") for snapshot in snapshots)

    def refresh(self, source: CopySource, target: Record) -> None:
        """Bring a stopped copy, which the caller holds, up to date: its tree and its snapshots, not its configuration.

        Raises:
            Internal: no space left; the tree is as it was.
        """
        volumes = self._storage.volumes
        with self._still(source):
            wanted = {row.name: row for row in self._snapshots_of(source.instance)} if source.with_snapshots else {}
            present = {row.name: row for row in self._snapshots_of(target)}
            for name, row in wanted.items():
                if name in present and present[name].created_at != row.created_at:
                    self._delete_snapshot(target, name)
                if name not in present or present[name].created_at != row.created_at:
                    self._add_snapshot(source, row, target)
            volumes.refresh_instance(source.place, target.pool, target.project, target.name)
            # Last: what fails before takes nothing away that is only here.
            for name in present.keys() - wanted.keys() if source.with_snapshots else ():
                self._delete_snapshot(target, name)
        self._refreshed(target)

    @contextmanager
    def keep_still(self, found: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Keep instances, by project and name, still while the block runs: something that they have is copied.

        Raises:
            Conflict: one is busy.
        """
        with ExitStack() as stack:
            for key in sorted(storage_name(project, name) for project, name in found):
                stack.enter_context(self._locks.hold(key, "copy", wait=_BUSY_SECONDS, shared=True))
                if self._lifecycle.status(key) == "Running":
                    stack.enter_context(self._lifecycle.frozen(key))
            yield

    @contextmanager
    def _still(self, source: CopySource) -> Iterator[None]:
        """Keep others from changing the source, and the source itself where a copy takes time."""
        found = source.instance
        with self._locks.hold(found.key, "copy", shared=True):
            freezes = source.is_consistent and not source.snapshot and self._lifecycle.changes_while_copied(found)
            with self._lifecycle.frozen(found.key) if freezes else nullcontext():
                yield

    def _snapshots_of(self, found: Record) -> list[Snapshot]:
        with self._db.reading() as session:
            return rows.of_instances(session, [found.id]).get(found.id, [])

    def _delete_snapshot(self, target: Record, name: str) -> None:
        with self._db.transaction() as session:
            rows.get(session, target.project, target.name, name, state=None).state = "deleting"
        self._storage.volumes.delete_snapshot(target.pool, target.project, target.name, name)
        with self._db.transaction() as session:
            session.delete(rows.get(session, target.project, target.name, name, state="deleting"))

    def _add_snapshot(self, source: CopySource, row: Snapshot, target: Record) -> None:
        with Reverter() as revert:
            with self._db.transaction() as session:
                session.add(_duplicate(row, target, "creating"))
            revert.add(self._delete_snapshot, target, row.name)
            place = Place(source.instance.pool, source.instance.project, source.instance.name, row.name)
            self._storage.volumes.copy_snapshot(place, target.pool, target.project, target.name, row.name)
            with self._db.transaction() as session:
                rows.get(session, target.project, target.name, row.name, state="creating").state = "created"
            revert.success()


def _duplicate(row: Snapshot, target: Record, state: str) -> Snapshot:
    return Snapshot(
        instance_id=target.id,
        name=row.name,
        state=state,
        architecture=row.architecture,
        description=row.description,
        config=row.config,
        devices=row.devices,
        profiles=row.profiles,
        ephemeral=row.ephemeral,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _load(session: Session, project: str, name: str) -> Record:
    try:
        return load(session, project, name)
    except NotFound:
        raise NotFound("Source instance not found") from None


def _facts(session: Session, source: CopySource) -> dict[str, Any]:
    found = source.instance
    if not source.snapshot:
        return {
            "config": found.config,
            "devices": found.devices,
            "profiles": list(found.profiles),
            "architecture": found.architecture,
            "description": found.description,
        }
    row = rows.get(session, found.project, found.name, source.snapshot)
    return {
        "config": row.config,
        "devices": row.devices,
        "profiles": list(row.profiles),
        "architecture": row.architecture,
        "description": row.description,
    }
