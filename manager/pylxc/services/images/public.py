"""What everybody may see: public images, and the aliases of those. All else is to strangers as if it were not there."""

from __future__ import annotations

from sqlalchemy.orm import Session

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.db.models import Image
from pylxc.errors import NotFound
from pylxc.services.images.render import render, render_alias
from pylxc.wire import images as wire


class PublicImages:
    """The public images of this server; thread-safe. A project that is not there is one that has none."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, project: str) -> list[wire.Image]:
        """Return a project's public images, oldest upload first."""
        with self._db.reading() as session:
            images = _public(session, project)
            aliases = rows.aliases_of(session, images)
            return [render(image, aliases[image.id]) for image in images]

    def get(self, project: str, prefix: str) -> wire.Image:
        """Return a public image by the beginning of its fingerprint.

        Raises:
            NotFound: there is none, or several begin so.
        """
        with self._db.reading() as session:
            found = [image for image in _public(session, project) if image.fingerprint.startswith(prefix.lower())]
            if len(found) != 1:
                raise NotFound("Image not found")
            return render(found[0], rows.aliases_of(session, found)[found[0].id])

    def alias(self, project: str, name: str) -> wire.ImageAliasesEntry:
        """Return an alias of a public image.

        Raises:
            NotFound: there is none.
        """
        with self._db.reading() as session:
            alias = rows.find_alias(session, scope, name) if (scope := _scope(session, project)) else None
            if alias is None or not alias.image.public:
                raise NotFound("Image alias not found")
            return render_alias(alias)


def _scope(session: Session, project: str) -> str:
    """Return the project whose images a project uses, "" when it is not there."""
    try:
        return projects.scope_name(session, project, "images")
    except NotFound:
        return ""


def _public(session: Session, project: str) -> list[Image]:
    return [image for image in rows.of_project(session, _scope(session, project)) if image.public]
