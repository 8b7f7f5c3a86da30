"""Image aliases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.db.models import ImageAlias
from pylxc.errors import BadRequest, Conflict
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.images.render import alias_etag_fields, render_alias
from pylxc.wire import images as wire


class Aliases:
    """The names of images; thread-safe."""

    def __init__(self, db: Database, events: EventBus) -> None:
        self._db = db
        self._events = events

    def list(self, project: str) -> list[wire.ImageAliasesEntry]:
        """Return a project's aliases by name."""
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            return [render_alias(alias) for alias in rows.aliases(session, scope)]

    def get(self, project: str, name: str) -> wire.ImageAliasesEntry:
        """Return one alias.

        Raises:
            NotFound: there is none.
        """
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            return render_alias(rows.get_alias(session, scope, name))

    def create(self, project: str, body: wire.ImageAliasesPost) -> str:
        """Make an alias and return its name.

        Raises:
            BadRequest: no name or no target, or a name that cannot be one.
            NotFound: no such image.
            Conflict: the name is taken.
        """
        name, target = check_name(body.get("name") or ""), body.get("target") or ""
        if not target:
            raise BadRequest("An alias needs a target: an image's fingerprint")

        def add(session: Session, scope: str) -> None:
            add_alias(session, scope, name, body.get("description") or "", target)

        self._change(project, add)
        self._tell("created", project, name, {"target": target})
        return name

    def update(self, project: str, name: str, body: wire.ImageAliasesEntryPut, if_match: str | None) -> None:
        """Set an alias's target and description, both for PUT, one of them for PATCH.

        Raises:
            NotFound: no such alias or image.
            PreconditionFailed: `if_match` names another state.
        """

        def change(session: Session, scope: str) -> None:
            alias = rows.get_alias(session, scope, name)
            etag.check(if_match, *alias_etag_fields(render_alias(alias)))
            if target := body.get("target"):
                alias.image = rows.get(session, scope, target)
            alias.description = body.get("description", alias.description)

        self._change(project, change)
        self._tell("updated", project, name)

    def rename(self, project: str, name: str, new_name: str) -> str:
        """Rename an alias and return the new name.

        Raises:
            NotFound: no such alias.
            Conflict: the new name is taken.
        """
        check_name(new_name)

        def change(session: Session, scope: str) -> None:
            alias = rows.get_alias(session, scope, name)
            if rows.find_alias(session, scope, new_name):
                raise Conflict(f"Alias {new_name!r} already exists")
            alias.name = new_name

        self._change(project, change)
        self._tell("renamed", project, new_name, {"old_name": name})
        return new_name

    def delete(self, project: str, name: str) -> None:
        """Remove an alias; its image stays.

        Raises:
            NotFound: there is none.
        """
        self._change(project, lambda session, scope: session.delete(rows.get_alias(session, scope, name)))
        self._tell("deleted", project, name)

    def _change(self, project: str, change: Callable[[Session, str], None]) -> None:
        try:
            with self._db.transaction() as session:
                change(session, projects.scope_name(session, project, "images"))
        except IntegrityError as error:
            raise Conflict("The alias already exists") from error

    def _tell(self, verb: str, project: str, name: str, context: dict[str, str] | None = None) -> None:
        source = f"/1.0/images/aliases/{quote(name, safe='')}"
        self._events.lifecycle(f"image-alias-{verb}", source, project=project, context=context)


def add_alias(session: Session, scope: str, name: str, description: str, target: str) -> None:
    """Add an alias of the image that `target` is the fingerprint of, in the caller's transaction.

    Raises:
        NotFound: no such image.
        Conflict: the name is taken.
    """
    image = rows.get(session, scope, target)
    refuse_taken(session, scope, [{"name": name}])
    session.add(ImageAlias(project_id=image.project_id, image=image, name=name, description=description))


def refuse_taken(session: Session, scope: str, aliases: Sequence[wire.ImageAlias]) -> None:
    """Check that no image has one of these names.

    Raises:
        Conflict: the name is taken.
    """
    for alias in aliases:
        if rows.find_alias(session, scope, alias["name"]):
            raise Conflict(f"Alias {alias['name']!r} already exists")


def check_name(name: str) -> str:
    """Return `name` when it can name an image.

    Raises:
        BadRequest: it is empty, too long, or holds control characters.
    """
    if not name or len(name) > 255 or not name.isprintable():
        raise BadRequest(f"Invalid alias name {name[:60]!r}")
    return name
