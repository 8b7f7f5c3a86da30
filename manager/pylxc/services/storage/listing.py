"""What there is to see of volumes: those of images, of instances and of users."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from sqlalchemy.orm import Session

from pylxc.db import models, projects, storage, volumes
from pylxc.db.engine import Database
from pylxc.errors import NotFound
from pylxc.services import etag, filters
from pylxc.services.storage.places import Place, Trees
from pylxc.wire import times
from pylxc.wire.storage import StorageVolume, Usage

KINDS = ("container", "custom", "image", "virtual-machine")
"""The types of volumes of the dialect."""


class Listing:
    """Shows volumes; thread-safe."""

    def __init__(self, db: Database, trees: Trees) -> None:
        self._db = db
        self._trees = trees

    def list(
        self, pool: str, project: str | None, kind: str | None = None, filter_text: str | None = None
    ) -> list[StorageVolume]:
        """Return a pool's volumes by type and name, snapshots of custom volumes among them as VOLUME/SNAPSHOT.

        Args:
            pool: its name.
            project: None for all projects.
            kind: a type, None for all.
            filter_text: LXD's filter language.

        Raises:
            NotFound: there is no such pool or project.
            BadRequest: a malformed filter.
        """
        with self._db.reading() as session:
            storage.pool(session, pool)
            rows = storage.volumes(session, pool, project=None, kind=kind)
            if project is not None:
                scopes = {kind: _scope(session, project, kind) for kind in KINDS}
                rows = [row for row in rows if row.project.name == scopes[row.type]]
            users = volumes.users(session) if any(row.type == "custom" for row in rows) else {}
            snapshots = volumes.snapshots(session, [row.id for row in rows if row.type == "custom"])
        found = []
        for row in rows:
            found.append(_render(row, users.get(_name(row), ())))
            found += [_render_snapshot(snapshot) for snapshot in snapshots.get(row.id, ())]
        return filters.select(found, filter_text)

    def get(self, pool: str, project: str, kind: str, name: str) -> StorageVolume:
        """Return a volume; raises NotFound."""
        with self._db.reading() as session:
            row = _find(session, pool, project, kind, name)
            users = volumes.users(session).get(_name(row), []) if kind == "custom" else []
        return _render(row, users)

    def etag(self, volume: StorageVolume) -> str:
        """Return the tag of a volume as it was read."""
        return etag.etag(*tagged(volume["name"], volume["type"], volume["config"]))

    def state(self, pool: str, project: str, kind: str, name: str) -> Usage:
        """Return the bytes that a volume takes and may take, 0 for no limit; raises NotFound."""
        with self._db.reading() as session:
            row = _find(session, pool, project, kind, name)
        place = Place(pool, row.project.name, name, kind=kind)
        used, total = self._trees.measure(place)
        return {"used": used, "total": total}


def tagged(name: str, kind: str, config: models.Config) -> tuple[object, ...]:
    """Return what a volume's entity tag is made of."""
    return name, kind, config


def url(place: Place) -> str:
    """Return the URL of a volume, or of a snapshot."""
    path = f"/1.0/storage-pools/{quote(place.pool)}/volumes/{place.kind}/{quote(place.name, safe='')}"
    if place.snapshot:
        path += f"/snapshots/{quote(place.snapshot)}"
    return path if place.project == "default" else f"{path}?project={quote(place.project)}"


def _find(session: Session, pool: str, project: str, kind: str, name: str) -> models.StorageVolume:
    storage.pool(session, pool)
    row = storage.volume(session, pool, _scope(session, project, kind), kind, name)
    if row is None:
        raise NotFound("Storage volume not found")
    return row


def _scope(session: Session, project: str, kind: str) -> str:
    """Return the project in which `project` looks for volumes of a type; the images' are the default project's."""
    if kind == "custom":
        return projects.scope_name(session, project, "storage.volumes")
    return "default" if kind == "image" else project


def _name(row: models.StorageVolume) -> volumes.Name:
    return row.pool.name, row.project.name, row.name


def _render(row: models.StorageVolume, users: Iterable[tuple[str, str, str]]) -> StorageVolume:
    own = {"image": f"/1.0/images/{row.name}", "container": f"/1.0/instances/{row.name}"}.get(row.type)
    named = [(own, row.project.name)] if own else [(f"/1.0/{kind}s/{quote(name)}", of) for kind, of, name in users]
    return {
        "config": row.config,
        "description": row.description,
        "name": row.name,
        "type": row.type,
        "used_by": sorted(path if of == "default" else f"{path}?project={quote(of)}" for path, of in named),
        "location": "none",
        "content_type": row.content_type,
        "project": row.project.name,
        "created_at": times.timestamp(row.created_at),
    }


def _render_snapshot(row: models.VolumeSnapshot) -> StorageVolume:
    return {
        **_render(row.volume, ()),
        "name": f"{row.volume.name}/{row.name}",
        "description": row.description,
        "config": row.config,
        "used_by": [],
        "created_at": times.timestamp(row.created_at),
    }
