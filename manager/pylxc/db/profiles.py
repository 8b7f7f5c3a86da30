"""Queries on profiles. Callers hold the transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session, contains_eager

from pylxc.db.models import Instance, InstanceProfile, Profile, Project, SeededProfile
from pylxc.errors import NotFound


def find(session: Session, project: str, name: str) -> Profile | None:
    """Return the profile `name` of `project`, None when there is none."""
    return session.scalar(select(Profile).join(Profile.project).where(Project.name == project, Profile.name == name))


def get(session: Session, project: str, name: str) -> Profile:
    """Return the profile `name` of `project`.

    Raises:
        NotFound: there is none.
    """
    profile = find(session, project, name)
    if profile is None:
        raise NotFound("Profile not found")
    return profile


def of_project(session: Session, project: str) -> list[Profile]:
    """Return a project's profiles by name."""
    query = select(Profile).join(Profile.project).where(Project.name == project).order_by(Profile.name)
    return list(session.scalars(query))


def named(session: Session, project: str, names: Iterable[str]) -> list[Profile]:
    """Return the profiles that `names` names, in that order.

    Raises:
        NotFound: one of them does not exist.
    """
    wanted = list(names)
    query = select(Profile).join(Profile.project).options(contains_eager(Profile.project))
    query = query.where(Project.name == project, Profile.name.in_(wanted))
    found = {profile.name: profile for profile in session.scalars(query)}
    for name in wanted:
        if name not in found:
            raise NotFound(f"Profile {name!r} not found")
    return [found[name] for name in wanted]


def users(session: Session, profile_ids: Iterable[int]) -> dict[int, list[tuple[str, str]]]:
    """Return per profile id the instances that have it, as (project, name) in order of name."""
    query = (
        select(InstanceProfile.profile_id, Project.name, Instance.name)
        .join(Instance, Instance.id == InstanceProfile.instance_id)
        .join(Project, Project.id == Instance.project_id)
        .where(InstanceProfile.profile_id.in_(list(profile_ids)))
        .order_by(Project.name, Instance.name)
    )
    found: dict[int, list[tuple[str, str]]] = {}
    for profile, project, name in session.execute(query):
        found.setdefault(profile, []).append((project, name))
    return found


def seeded(session: Session) -> dict[str, str]:
    """Return the entity tags that built-in profiles had when this server was given them, by name."""
    return {row.name: row.etag for row in session.scalars(select(SeededProfile))}


def record_seed(session: Session, name: str, etag: str) -> None:
    """Note that this server was given a built-in profile."""
    session.merge(SeededProfile(name=name, etag=etag))
