"""Queries on storage pools and volumes. Callers hold the transaction; rows in state "created" are what users see."""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, contains_eager

from pylxc.db.models import Instance, Profile, Project, StoragePool, StorageVolume
from pylxc.errors import NotFound


def pools(session: Session) -> list[StoragePool]:
    """Return the created pools by name."""
    query = select(StoragePool).where(StoragePool.state == "created")
    return list(session.scalars(query.order_by(StoragePool.name)))


def pool(session: Session, name: str, *, state: str | None = "created") -> StoragePool:
    """Return the pool called `name` in `state` (None for any).

    Raises:
        NotFound: there is none.
    """
    query = select(StoragePool).where(StoragePool.name == name)
    if state is not None:
        query = query.where(StoragePool.state == state)
    found = session.scalar(query)
    if found is None:
        raise NotFound("Storage pool not found")
    return found


def instances_in(session: Session, pool_id: int, name: str | None = None) -> list[int]:
    """Return the ids of the created instances (None: all, else those of that name) whose volumes are in a pool."""
    volume = StorageVolume
    query = select(Instance.id).join(
        volume, (volume.project_id == Instance.project_id) & (volume.name == Instance.name)
    )
    query = query.where(volume.storage_pool_id == pool_id, volume.type == "container", Instance.state == "created")
    if name is not None:
        query = query.where(Instance.name == name)
    return list(session.scalars(query))


def unsettled_pools(session: Session) -> list[StoragePool]:
    """Return the pools that a dead daemon left half made or half deleted."""
    return list(session.scalars(select(StoragePool).where(StoragePool.state != "created")))


def volumes(session: Session, pool_name: str, *, project: str | None, kind: str | None = None) -> list[StorageVolume]:
    """Return a pool's created volumes by type and name; `project` and `kind` narrow them down."""
    query = select(StorageVolume).join(StorageVolume.pool).join(StorageVolume.project)
    query = query.where(StoragePool.name == pool_name, StorageVolume.state == "created")
    if project is not None:
        query = query.where(Project.name == project)
    if kind is not None:
        query = query.where(StorageVolume.type == kind)
    return list(session.scalars(query.order_by(StorageVolume.type, StorageVolume.name)))


def volume(
    session: Session, pool_name: str, project: str, kind: str, name: str, *, state: str | None = "created"
) -> StorageVolume | None:
    """Return a volume in `state` (None for any), None when there is none."""
    query = select(StorageVolume).join(StorageVolume.pool).join(StorageVolume.project)
    query = query.options(contains_eager(StorageVolume.pool), contains_eager(StorageVolume.project))
    query = query.where(
        StoragePool.name == pool_name,
        Project.name == project,
        StorageVolume.type == kind,
        StorageVolume.name == name,
    )
    if state is not None:
        query = query.where(StorageVolume.state == state)
    return session.scalar(query)


def of_project(session: Session, project_id: int) -> list[StorageVolume]:
    """Return a project's volumes of instances and of users, in any state and of any pool."""
    query = select(StorageVolume).where(StorageVolume.project_id == project_id, StorageVolume.type != "image")
    return list(session.scalars(query))


def set_volume_state(session: Session, volume_id: int, state: str) -> None:
    """Change a volume's state."""
    query = update(StorageVolume).where(StorageVolume.id == volume_id).values(state=state)
    session.execute(query, execution_options={"synchronize_session": False})


def delete_volume(session: Session, volume_id: int) -> None:
    """Delete a volume's row."""
    query = delete(StorageVolume).where(StorageVolume.id == volume_id)
    session.execute(query, execution_options={"synchronize_session": False})


def every_volume(session: Session, pool_name: str) -> list[StorageVolume]:
    """Return a pool's volumes in any state."""
    query = select(StorageVolume).join(StorageVolume.pool).where(StoragePool.name == pool_name)
    return list(session.scalars(query))


def image_volumes(session: Session, fingerprint: str) -> list[StorageVolume]:
    """Return an image's volumes, of every pool and in any state."""
    query = select(StorageVolume).where(StorageVolume.type == "image", StorageVolume.name == fingerprint)
    return list(session.scalars(query))


def image_pools(session: Session, fingerprint: str) -> list[str]:
    """Return the names of the pools in which an image has a whole volume."""
    return sorted(row.pool.name for row in image_volumes(session, fingerprint) if row.state == "created")


def images(session: Session) -> set[str]:
    """Return the fingerprints of the images that have volumes."""
    return set(session.scalars(select(StorageVolume.name).where(StorageVolume.type == "image")))


def unsettled_volumes(session: Session) -> list[StorageVolume]:
    """Return the volumes that a dead daemon left half made or half deleted."""
    return list(session.scalars(select(StorageVolume).where(StorageVolume.state != "created")))


def users(session: Session) -> dict[str, list[tuple[str, str, str]]]:
    """Return per pool what uses it, as (kind, project, name) with kind "container", "image", "custom" or "profile"."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    query = (
        select(StoragePool.name, StorageVolume.type, Project.name, StorageVolume.name)
        .join(StorageVolume, StorageVolume.storage_pool_id == StoragePool.id)
        .join(Project, Project.id == StorageVolume.project_id)
        .order_by(StorageVolume.type, Project.name, StorageVolume.name)
    )
    for pool_name, kind, project, name in session.execute(query):
        found.setdefault(pool_name, []).append((kind, project, name))
    for profile in session.scalars(select(Profile).order_by(Profile.name)):
        for pool_name in {d["pool"] for d in profile.devices.values() if d.get("type") == "disk" and d.get("pool")}:
            found.setdefault(pool_name, []).append(("profile", profile.project.name, profile.name))
    return found
