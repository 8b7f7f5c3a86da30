"""Renaming projects: what bears the name on disk and on the host follows, all of it or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from pylxc.db import instances, projects, storage
from pylxc.db.engine import Database
from pylxc.db.models import Instance, Project, StorageVolume
from pylxc.errors import Conflict, PylxcError
from pylxc.revert import Reverter
from pylxc.services.instances.expand import Record, record
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.remove import Remover
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools
from pylxc.services.volumes.store import VolumeStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What bears a project's name: its instances, by id, and the places of its volumes."""

    instances: dict[int, Record]
    places: frozenset[Place]


class ProjectRenamer:
    """Renames projects in which nothing runs; thread-safe.

    The project's row says the new name first, and nothing is made in the project from then on (`projects.get`). Trees
    and logs are renamed one by one, which may be repeated; the row's change of its name ends it.

    Args:
        mark: has the backup.yaml of instances, by their rows' ids, written anew.
    """

    def __init__(
        self,
        db: Database,
        storage: StoragePools,
        volumes: VolumeStore,
        locks: InstanceLocks,
        lifecycle: Lifecycle,
        remover: Remover,
        mark: Callable[..., None],
    ) -> None:
        self._db = db
        self._storage = storage
        self._volumes = volumes
        self._locks = locks
        self._lifecycle = lifecycle
        self._remover = remover
        self._mark = mark

    def rename(self, name: str, new: str) -> None:
        """Rename a project.

        Raises:
            NotFound: there is none.
            BadRequest: an instance in it runs.
            Conflict: the new name is taken, or something in the project is being changed.
            Unavailable: a storage pool that has volumes of it cannot be used.
        """
        with self._db.reading() as session:
            row = projects.get(session, name)
            contents = _contents(session, row)
        with self._held(contents, new), Reverter() as revert:
            for pool in sorted({place.pool for place in contents.places}):
                self._storage.driver(pool)
            for found in contents.instances.values():
                self._lifecycle.require_stopped(found.key, f"Instance {found.name!r} of the project is running")
            with self._db.transaction() as session:
                row = projects.get(session, name)
                if projects.exists(session, new):
                    raise Conflict(f"Project {new!r} already exists")
                found_now = _contents(session, row)
                if (found_now.instances.keys(), found_now.places) != (contents.instances.keys(), contents.places):
                    raise Conflict(f"Something in project {name!r} has just changed", hint="try again")
                row.new_name = new
            revert.add(self._keep_name, row.id)
            self._finish(row.id, contents, new)
            revert.success()

    def reconcile(self, _pool: str = "") -> None:
        """Finish the renames that a dead daemon left; call before volumes and instances are seen to.

        What is in pools that cannot be used is left until they are back.
        """
        with self._db.reading() as session:
            left = [row for row in projects.everything(session) if row.new_name]
        for row in left:
            log.warning("Finishing the renaming of project %s, begun by a daemon that died", row.name)
            try:
                with self._db.reading() as session:
                    contents = _contents(session, row)
                with self._held(contents, row.new_name):
                    self._finish(row.id, contents, row.new_name)
            except (PylxcError, OSError) as error:
                log.error("Failed renaming project %s to %s: %s", row.name, row.new_name, error)

    @contextmanager
    def _held(self, contents: _Contents, new: str) -> Iterator[None]:
        """Hold what is in a project, by its former names and its new ones."""
        keys = {found.key for each in contents.instances.values() for found in (each, replace(each, project=new))}
        custom = [place for place in contents.places if place.kind == "custom"]
        both = [*custom, *(replace(place, project=new) for place in custom)]
        with self._locks.hold_all(keys, "project rename"), self._volumes.holding(*both):
            yield

    def _keep_name(self, row_id: int) -> None:
        with self._db.transaction() as session:
            session.get_one(Project, row_id).new_name = ""

    def _finish(self, row_id: int, contents: _Contents, new: str) -> None:
        with Reverter() as revert:
            for place in contents.places:
                there = replace(place, project=new)
                revert.add(self._storage.trees.rename, there, place)
                self._storage.trees.rename(place, there)
            for found in contents.instances.values():
                after = replace(found, project=new)
                revert.add(self._remover.forget, after, found)
                self._remover.forget(found, after)
            with self._db.transaction() as session:
                row = session.get_one(Project, row_id)
                row.name, row.new_name = new, ""
            revert.success()
        self._mark(*contents.instances)


def _contents(session: Session, row: Project) -> _Contents:
    """Return what is in a project; raises Conflict when something is half made, or goes."""
    rows = instances.in_project(session, row.id)
    volumes = storage.of_project(session, row.id)
    busy: list[Instance | StorageVolume] = [*rows, *volumes]
    for each in busy:
        if each.state != "created" or each.new_name:
            raise Conflict(f"{each.name!r} in project {row.name!r} is being changed", hint="try again later")
    return _Contents(
        instances={each.id: record(each) for each in rows},
        places=frozenset(Place(each.pool.name, row.name, each.name, kind=each.type) for each in volumes),
    )
