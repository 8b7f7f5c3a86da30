"""Queries on projects. Callers hold the transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pylxc.db.models import Image, Instance, Network, Profile, Project, StoragePool, StorageVolume
from pylxc.errors import Conflict, NotFound


def get(session: Session, name: str) -> Project:
    """Return the project called `name`.

    Raises:
        NotFound: there is none.
        Conflict: it is being renamed.
    """
    project = session.scalar(select(Project).where(Project.name == name))
    if project is None:
        raise NotFound("Project not found")
    refuse_renaming(project)
    return project


def refuse_renaming(project: Project) -> None:
    """Raise Conflict when a project is being renamed."""
    if project.new_name:
        raise Conflict(f"Project {project.name!r} is being renamed to {project.new_name!r}", hint="try again")


def exists(session: Session, name: str) -> bool:
    """Return whether a project is called `name`, or is being given that name."""
    return session.scalar(select(Project.id).where((Project.name == name) | (Project.new_name == name))) is not None


def everything(session: Session) -> list[Project]:
    """Return all projects by name."""
    return list(session.scalars(select(Project).order_by(Project.name)))


def scope(project: Project, feature: str) -> str:
    """Return the project whose `feature` ("images", "profiles", "storage.volumes", "networks") this one uses."""
    if project.name == "default" or project.config.get(f"features.{feature}") in ("true", "1", "yes", "on"):
        return project.name
    return "default"


def scope_name(session: Session, name: str, feature: str) -> str:
    """Return the project whose `feature` the project called `name` uses; raises like `get`."""
    return "default" if name == "default" else scope(get(session, name), feature)


def users(session: Session) -> dict[str, list[tuple[str, str]]]:
    """Return per project what lives in it, as (kind, name) with kind "instances", "images", "profiles", ..."""
    found: dict[str, list[tuple[str, str]]] = {}
    queries = (
        ("instances", select(Project.name, Instance.name).join(Instance.project)),
        ("profiles", select(Project.name, Profile.name).join(Profile.project)),
        ("images", select(Project.name, Image.fingerprint).join(Image.project)),
        ("networks", select(Project.name, Network.name).join(Network.project)),
        (
            "volumes",
            select(Project.name, StoragePool.name + "/volumes/custom/" + StorageVolume.name)
            .join(StorageVolume.project)
            .join(StorageVolume.pool)
            .where(StorageVolume.type == "custom"),
        ),
    )
    for kind, query in queries:
        for project, name in session.execute(query):
            found.setdefault(project, []).append((kind, name))
    return found
