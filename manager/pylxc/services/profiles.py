"""Profiles: configuration and devices that instances share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import quote

from sqlalchemy.orm import Session

from pylxc import paths, validate
from pylxc.db import instances, profiles, projects
from pylxc.db.engine import Database
from pylxc.db.models import Instance, Profile
from pylxc.errors import BadRequest, Conflict, Forbidden
from pylxc.revert import Reverter
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.instances import checks
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import url
from pylxc.services.projects import admission
from pylxc.wire import profiles as wire


class Remainder(Protocol):
    """What remains to be done for instances after a transaction: `services.instances.update.Reexpansion`."""

    def apply(self) -> None:
        """Bring those that run in line, all or none; raises PylxcError."""

    def restore(self, session: Session) -> None:
        """Undo what `Dependents.reexpand` did to their rows."""


class Dependents(Protocol):
    """Keeps instances in line with their profiles: `services.instances.update.Updater`."""

    def hold(self, keys: Iterable[str]) -> AbstractContextManager[None]:
        """Hold instances, by their keys on disk; raises Conflict."""

    def reexpand(self, session: Session, rows: Sequence[Instance], change: Callable[[], None]) -> Remainder:
        """Run `change`, which alters profiles of `rows`; see `Updater.reexpand`."""


class Profiles:
    """The profiles of this server; thread-safe. A project without `features.profiles` uses the default project's."""

    def __init__(self, db: Database, devices: DeviceManager, events: EventBus, dependents: Dependents) -> None:
        self._db = db
        self._devices = devices
        self._events = events
        self._dependents = dependents

    def list(self, project: str) -> list[wire.Profile]:
        """Return a project's profiles by name; raises NotFound for the project."""
        with self._db.reading() as session:
            rows = profiles.of_project(session, projects.scope_name(session, project, "profiles"))
            users = profiles.users(session, [row.id for row in rows])
        return [_render(row, users.get(row.id, [])) for row in rows]

    def get(self, project: str, name: str) -> tuple[wire.Profile, str]:
        """Return a profile and its entity tag; raises NotFound."""
        with self._db.reading() as session:
            row = profiles.get(session, projects.scope_name(session, project, "profiles"), name)
            users = profiles.users(session, [row.id])
        return _render(row, users.get(row.id, [])), etag.etag(*_tagged(row))

    def create(self, project: str, body: wire.ProfilesPost) -> str:
        """Make a profile and return its name.

        Raises:
            BadRequest: a malformed name, configuration or device.
            Conflict: the name is taken.
            Forbidden: the project does not allow it.
            NotFound: no such project.
        """
        name = body.get("name", "")
        validate.object_name(name, "profile")
        config = checks.without_empty(body.get("config", {}))
        devices = body.get("devices", {})
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "profiles")
        self._check(scope, config, devices)
        with self._db.transaction() as session:
            if profiles.find(session, scope, name) is not None:
                raise Conflict(f"Profile {name!r} already exists")
            project_row = projects.get(session, scope)
            session.add(
                Profile(
                    project=project_row,
                    name=name,
                    description=body.get("description", ""),
                    config=config,
                    devices=checks.devices_without_empty(devices),
                )
            )
            admission.check(session, project_row)
        self._tell("created", project, name)
        return name

    def replace(self, project: str, name: str, body: wire.ProfilePut, if_match: str | None) -> None:
        """Make a profile what a PUT says.

        Raises:
            NotFound: there is none.
            BadRequest: a malformed value, or one that an instance with this profile cannot have.
            Forbidden: the project of the profile, or of an instance with it, does not allow it.
            PreconditionFailed: `if_match` names another state.
        """

        def change(row: Profile) -> None:
            row.description = body.get("description", "")
            row.config = checks.without_empty(body.get("config", {}))
            row.devices = body.get("devices", {})

        self._change(project, name, if_match, change)

    def merge(self, project: str, name: str, body: wire.ProfilePut, if_match: str | None) -> None:
        """Change what a PATCH has, configuration key by key and devices by name; raises like `replace`."""

        def change(row: Profile) -> None:
            row.description = body.get("description", row.description)
            row.config = checks.without_empty({**row.config, **body.get("config", {})})
            row.devices = {**row.devices, **body.get("devices", {})}

        self._change(project, name, if_match, change)

    def rename(self, project: str, name: str, body: wire.ProfilePost) -> str:
        """Rename a profile and return its new name.

        Raises:
            NotFound: there is none.
            BadRequest: the new name is no name.
            Forbidden: it is the default profile.
            Conflict: the new name is taken.
        """
        new = body.get("name", "")
        validate.object_name(new, "profile")
        if name == "default":
            raise Forbidden("The 'default' profile cannot be renamed")
        with self._db.transaction() as session:
            scope = projects.scope_name(session, project, "profiles")
            row = profiles.get(session, scope, name)
            if profiles.find(session, scope, new) is not None:
                raise Conflict(f"Profile {new!r} already exists")
            row.name = new
        self._tell("renamed", project, new, {"old_name": name})
        return new

    def delete(self, project: str, name: str) -> None:
        """Delete a profile that no instance has.

        Raises:
            NotFound: there is none.
            Forbidden: it is the default profile.
            BadRequest: instances have it.
        """
        if name == "default":
            raise Forbidden("The 'default' profile cannot be deleted")
        with self._db.transaction() as session:
            row = profiles.get(session, projects.scope_name(session, project, "profiles"), name)
            users = profiles.users(session, [row.id]).get(row.id)
            if users:
                raise BadRequest(
                    "Profile is currently in use", hint=f"by {', '.join(sorted(user for _, user in users))}"
                )
            session.delete(row)
        self._tell("deleted", project, name)

    def _change(self, project: str, name: str, if_match: str | None, change: Callable[[Profile], None]) -> None:
        with self._db.reading() as session:
            row = profiles.get(session, projects.scope_name(session, project, "profiles"), name)
            users = {paths.storage_name(*user) for user in profiles.users(session, [row.id]).get(row.id, ())}
        with self._dependents.hold(users):
            with self._db.transaction() as session:
                row = profiles.get(session, projects.scope_name(session, project, "profiles"), name)
                etag.check(if_match, *_tagged(row))
                dependents = instances.with_profile(session, row.id)
                if not {paths.storage_name(user.project.name, user.name) for user in dependents} <= users:
                    raise Conflict(f"Profile {name!r} has just been given to another instance", hint="try again")
                former = (row.description, row.config, row.devices)
                rest = self._dependents.reexpand(session, dependents, lambda: self._checked(row, change))
                admission.check(session, row.project)
            with Reverter() as revert:
                revert.add(self._restore, row.id, former, rest)
                rest.apply()
                revert.success()
        self._tell("updated", project, name)

    def _restore(
        self, profile: int, former: tuple[str, dict[str, str], dict[str, dict[str, str]]], rest: Remainder
    ) -> None:
        with self._db.transaction() as session:
            row = session.get_one(Profile, profile)
            row.description, row.config, row.devices = former
            rest.restore(session)

    def _checked(self, row: Profile, change: Callable[[Profile], None]) -> None:
        change(row)
        self._check(row.project.name, row.config, row.devices)
        row.devices = checks.devices_without_empty(row.devices)

    def _check(self, project: str, config: dict[str, str], devices: dict[str, dict[str, str]]) -> None:
        checks.config(config, in_profile=True)
        self._devices.validate(devices, project, in_profile=True)

    def _tell(self, verb: str, project: str, name: str, context: dict[str, str] | None = None) -> None:
        self._events.lifecycle(f"profile-{verb}", f"/1.0/profiles/{quote(name)}", project=project, context=context)


def _render(row: Profile, users: Iterable[tuple[str, str]]) -> wire.Profile:
    return {
        "config": row.config,
        "description": row.description,
        "devices": row.devices,
        "name": row.name,
        "used_by": [url(project, name) for project, name in users],
    }


def _tagged(row: Profile) -> tuple[object, ...]:
    return (row.config, row.description, row.devices)
