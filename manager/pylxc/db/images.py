"""Queries on images and their aliases. Callers hold the transaction; `project` is the one whose images are used."""

from __future__ import annotations

import string
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from pylxc.db.models import Image, ImageAlias, Project
from pylxc.errors import BadRequest, NotFound


def of_project(session: Session, project: str | None) -> list[Image]:
    """Return a project's images (all projects' when None), oldest upload first."""
    query = select(Image).join(Image.project)
    if project is not None:
        query = query.where(Project.name == project)
    return list(session.scalars(query.order_by(Image.uploaded_at, Image.fingerprint)))


def find(session: Session, project: str, fingerprint: str) -> Image | None:
    """Return the image of exactly this fingerprint, None when there is none."""
    query = select(Image).join(Image.project)
    return session.scalar(query.where(Project.name == project, Image.fingerprint == fingerprint))


def get(session: Session, project: str, prefix: str) -> Image:
    """Return the image whose fingerprint begins with `prefix`.

    Raises:
        NotFound: there is none.
        BadRequest: there are several.
    """
    prefix = prefix.lower()
    if not prefix or prefix.strip(string.hexdigits):
        raise NotFound("Image not found")
    query = select(Image).join(Image.project).where(Project.name == project, Image.fingerprint.startswith(prefix))
    found = list(session.scalars(query.limit(2)))
    if not found:
        raise NotFound("Image not found")
    if len(found) > 1:
        raise BadRequest("Partial fingerprint matches more than one image", hint="give more of it")
    return found[0]


def by_source(session: Session, project: str, source: Mapping[str, str]) -> list[Image]:
    """Return the images whose `source` holds all these values ("" is what it does not hold), newest upload first."""
    found = [
        image
        for image in of_project(session, project)
        if all(image.source.get(key, "") == value for key, value in source.items())
    ]
    return found[::-1]


def fingerprints(session: Session) -> set[str]:
    """Return the fingerprints of all projects' images."""
    return set(session.scalars(select(Image.fingerprint).distinct()))


def is_used_elsewhere(session: Session, image: Image) -> bool:
    """Tell whether another project has the same image, so that its files must stay."""
    query = select(Image.id).where(Image.fingerprint == image.fingerprint, Image.id != image.id)
    return session.scalar(query.limit(1)) is not None


def aliases(session: Session, project: str) -> list[ImageAlias]:
    """Return a project's aliases by name."""
    query = select(ImageAlias).join(Project, ImageAlias.project_id == Project.id).where(Project.name == project)
    return list(session.scalars(query.order_by(ImageAlias.name)))


def aliases_of(session: Session, images: list[Image]) -> dict[int, list[ImageAlias]]:
    """Return the aliases of `images` by the image's id, by name."""
    found: dict[int, list[ImageAlias]] = {image.id: [] for image in images}
    if images:
        query = select(ImageAlias).order_by(ImageAlias.name)
        if len(images) == 1:
            query = query.where(ImageAlias.image_id == images[0].id)
        for alias in session.scalars(query):
            if alias.image_id in found:
                found[alias.image_id].append(alias)
    return found


def find_alias(session: Session, project: str, name: str) -> ImageAlias | None:
    """Return the alias called `name`, None when there is none."""
    query = select(ImageAlias).join(Project, ImageAlias.project_id == Project.id)
    return session.scalar(query.where(Project.name == project, ImageAlias.name == name))


def get_alias(session: Session, project: str, name: str) -> ImageAlias:
    """Return the alias called `name`.

    Raises:
        NotFound: there is none.
    """
    alias = find_alias(session, project, name)
    if alias is None:
        raise NotFound("Image alias not found")
    return alias
