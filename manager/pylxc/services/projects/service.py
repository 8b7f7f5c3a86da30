"""Projects: namespaces for instances, images, profiles, volumes and networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import quote

from sqlalchemy.orm import Session

from pylxc import validate
from pylxc.config.project import FEATURES, PROJECT
from pylxc.db import profiles, projects
from pylxc.db.engine import Database
from pylxc.db.models import Profile, Project
from pylxc.errors import BadRequest, Conflict, Forbidden
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.instances.checks import without_empty
from pylxc.services.operations import Operation, Operations
from pylxc.services.projects import admission, holdings, limits
from pylxc.wire import projects as wire

_NEW = ("features.images", "features.profiles", "features.storage.volumes")
"""What a new project has of its own when nothing is said about it."""

_PATHS = {
    "instances": "/1.0/instances/",
    "profiles": "/1.0/profiles/",
    "images": "/1.0/images/",
    "networks": "/1.0/networks/",
    "volumes": "/1.0/storage-pools/",
}


class Projects:
    """The projects of this server; thread-safe. `rename` is `ProjectRenamer.rename`."""

    def __init__(
        self, db: Database, operations: Operations, events: EventBus, rename: Callable[[str, str], None]
    ) -> None:
        self._db = db
        self._rename = rename
        self._operations = operations
        self._events = events

    def list(self) -> list[wire.Project]:
        """Return the projects by name."""
        with self._db.reading() as session:
            rows, users = projects.everything(session), projects.users(session)
        return [_render(row, users.get(row.name, [])) for row in rows]

    def get(self, name: str) -> tuple[wire.Project, str]:
        """Return a project and its entity tag; raises NotFound."""
        with self._db.reading() as session:
            row, users = projects.get(session, name), projects.users(session)
        return _render(row, users.get(name, [])), etag.etag(*_tagged(row))

    def require(self, name: str) -> None:
        """Check that there is a project; raises NotFound."""
        with self._db.reading() as session:
            projects.get(session, name)

    def scope(self, name: str, feature: str) -> str:
        """Return the project whose `feature` ("images", "profiles", ...) a project uses; raises NotFound."""
        with self._db.reading() as session:
            return projects.scope_name(session, name, feature)

    def state(self, name: str) -> wire.ProjectState:
        """Return what a project uses of its limits; raises NotFound."""
        with self._db.reading() as session:
            usage = limits.usage(holdings.of(session, projects.get(session, name)))
        return {"resources": {limit: {"Limit": allowed, "Usage": used} for limit, (allowed, used) in usage.items()}}

    def create(self, body: wire.ProjectsPost) -> str:
        """Make a project, with a default profile of its own unless it uses the default project's; return its name.

        Raises:
            BadRequest: a malformed name or configuration.
            Conflict: the name is taken.
        """
        name = body.get("name", "")
        validate.project_name(name)
        config = dict.fromkeys(_NEW, "true") | without_empty(body.get("config", {}))
        PROJECT.validate(config)
        with self._db.transaction() as session:
            if projects.exists(session, name):
                raise Conflict(f"Project {name!r} already exists")
            row = Project(name=name, description=body.get("description", ""), config=config)
            session.add(row)
            if validate.is_true(config.get("features.profiles")):
                _set_default_profile(session, row, wanted=True)
        self._tell("created", name)
        return name

    def replace(self, name: str, body: wire.ProjectPut, if_match: str | None) -> None:
        """Make a project what a PUT says.

        Raises:
            NotFound: there is none.
            BadRequest: a malformed value, or a feature changed of a project that is in use.
            Forbidden: something in the project is not allowed by what it says; the thing is named.
            PreconditionFailed: `if_match` names another state.
        """
        self._change(name, if_match, lambda _row: (without_empty(body.get("config", {})), body.get("description", "")))

    def merge(self, name: str, body: wire.ProjectPut, if_match: str | None) -> None:
        """Change what a PATCH has; raises like `replace`."""
        self._change(
            name,
            if_match,
            lambda row: (
                without_empty({**row.config, **body.get("config", {})}),
                body.get("description", row.description),
            ),
        )

    def rename(self, name: str, body: wire.ProjectPost) -> Operation:
        """Start renaming a project in which nothing runs.

        Raises:
            NotFound: there is none.
            BadRequest: the new name is no name.
            Forbidden: it is the default project.
            Conflict: the new name is taken.
        """
        new = body.get("name", "")
        validate.project_name(new)
        if name == "default":
            raise Forbidden("The 'default' project cannot be renamed")
        with self._db.reading() as session:
            projects.get(session, name)
            if projects.exists(session, new):
                raise Conflict(f"Project {new!r} already exists")

        def run(_operation: Operation) -> None:
            self._rename(name, new)
            self._tell("renamed", new, {"old_name": name})

        return self._operations.start("Renaming project", run, project="", resources={"projects": [_url(name)]})

    def delete(self, name: str) -> None:
        """Delete an empty project.

        Raises:
            NotFound: there is none.
            BadRequest: it is not empty.
            Forbidden: it is the default project.
        """
        if name == "default":
            raise Forbidden("The 'default' project cannot be deleted")
        with self._db.transaction() as session:
            row = projects.get(session, name)
            _require_empty(projects.users(session).get(name, []), "Only empty projects can be removed")
            if (default := profiles.find(session, name, "default")) is not None:
                session.delete(default)
                session.flush()
            session.delete(row)
        self._tell("deleted", name)

    def _change(self, name: str, if_match: str | None, change: Callable[[Project], tuple[dict[str, str], str]]) -> None:
        with self._db.transaction() as session:
            row = projects.get(session, name)
            etag.check(if_match, *_tagged(row))
            config, description = change(row)
            PROJECT.validate(config)
            for feature in FEATURES:
                key = f"features.{feature}"
                if validate.is_true(config.get(key)) is validate.is_true(row.config.get(key)):
                    continue
                if name == "default":
                    raise BadRequest("You can't change the features of the default project")
                verb = "enabled" if validate.is_true(config.get(key)) else "disabled"
                complaint = f'Project feature "{key}" cannot be {verb} on non-empty projects'
                _require_empty(projects.users(session).get(name, []), complaint)
                if feature == "profiles":
                    _set_default_profile(session, row, wanted=validate.is_true(config.get(key)))
            before, row.config, row.description = row.config, config, description
            admission.check_changed(session, row, before)
        self._tell("updated", name)

    def _tell(self, verb: str, name: str, context: dict[str, str] | None = None) -> None:
        self._events.lifecycle(f"project-{verb}", _url(name), project="", context=context)


def _url(name: str) -> str:
    return f"/1.0/projects/{quote(name)}"


def _render(row: Project, users: Iterable[tuple[str, str]]) -> wire.Project:
    suffix = "" if row.name == "default" else f"?project={quote(row.name)}"
    return {
        "name": row.name,
        "description": row.description,
        "config": row.config,
        "used_by": [f"{_PATHS[kind]}{quote(name)}{suffix}" for kind, name in users],
    }


def _tagged(row: Project) -> tuple[object, ...]:
    return (row.description, row.config)


def _require_empty(users: Iterable[tuple[str, str]], complaint: str) -> None:
    """Refuse when a project holds more than its default profile."""
    left = [f"{kind[:-1]} {name}" for kind, name in users if (kind, name) != ("profiles", "default")]
    if left:
        raise BadRequest(complaint, hint=f"there is {left[0]}" + (f" and {len(left) - 1} more" if left[1:] else ""))


def _set_default_profile(session: Session, row: Project, *, wanted: bool) -> None:
    """Give a project a default profile of its own, or take it away."""
    found = profiles.find(session, row.name, "default")
    if wanted and found is None:
        description = f"Default LXD profile for project {row.name}"
        session.add(Profile(project=row, name="default", description=description, config={}, devices={}))
    elif not wanted and found is not None:
        session.delete(found)
