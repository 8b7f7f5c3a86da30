"""Changing an instance's configuration, devices and profiles."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from pylxc.db import instances, profiles, projects
from pylxc.db.engine import Database
from pylxc.db.models import Config, Devices, Instance, Project
from pylxc.errors import BadRequest, PylxcError
from pylxc.paths import storage_name
from pylxc.revert import Reverter
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.instances import checks, cloud_init, duplicates, idmap, root_size
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import (
    INSTANCE_ID,
    POWER,
    Record,
    choose_idmap,
    is_of_run,
    load,
    lost_devices,
    record,
    root_disk,
)
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.render import etag_fields
from pylxc.services.projects import admission, restrictions
from pylxc.services.storage.volumes import Volumes
from pylxc.wire.instances import InstancePut

_BUSY_SECONDS = 5.0
"""How long a change of a profile waits for another operation on an instance that has it."""


@dataclass(slots=True)
class _Wanted:
    """The whole of an instance's changeable fields as they shall be."""

    architecture: str
    config: Config
    devices: Devices
    profiles: list[str]
    ephemeral: bool
    description: str


class Updater:
    """Changes of instances; thread-safe.

    Args:
        apply_live: brings an instance in line with its new record, (before, after); returns whether it runs.
    """

    def __init__(
        self,
        db: Database,
        volumes: Volumes,
        devices: DeviceManager,
        events: EventBus,
        locks: InstanceLocks,
        apply_live: Callable[[Record, Record], bool],
    ) -> None:
        self._db = db
        self._volumes = volumes
        self._devices = devices
        self._events = events
        self._locks = locks
        self._apply_live = apply_live

    def check(self, project: str, name: str, body: InstancePut, if_match: str | None) -> None:
        """Check a PUT before it becomes an operation.

        Raises:
            NotFound: no such instance, profile or snapshot.
            BadRequest: the body's values are invalid.
            Forbidden: the project does not allow them.
            PreconditionFailed: `if_match` names another state.
        """
        with self._db.reading() as session:
            found = load(session, project, name)
            etag.check(if_match, *etag_fields(found))
            self._validate(session, projects.get(session, project), found, _replaced(found, body))

    def replace(self, project: str, name: str, body: InstancePut, if_match: str | None) -> None:
        """Make an instance what a PUT says, empty where it is silent; raises like `check`, and Conflict when busy."""
        self._change(project, name, if_match, lambda found: _replaced(found, body))

    def merge(self, project: str, name: str, body: InstancePut, if_match: str | None) -> None:
        """Change what a PATCH has, configuration key by key and devices by name; raises like `replace`."""
        self._change(project, name, if_match, lambda found: _merged(found, body))

    @contextmanager
    def hold(self, keys: Iterable[str]) -> Iterator[None]:
        """Hold instances, by key, while profiles of theirs are changed.

        Raises:
            Conflict: one of them is busy.
        """
        with self._locks.hold_all(keys, "update", wait=_BUSY_SECONDS):
            yield

    def reexpand(self, session: Session, rows: Sequence[Instance], change: Callable[[], None]) -> Reexpansion:
        """Change profiles of instances within a transaction, and keep up what follows from that.

        Args:
            session: the transaction.
            rows: the instances that have the profiles; the caller holds them.
            change: alters the profiles.

        Returns:
            What remains to be done after the transaction.

        Raises:
            BadRequest: an instance would be invalid.
            Forbidden: the project of one does not allow it.
        """
        before = [record(row) for row in rows]
        change()
        after = []
        for old, row in zip(before, rows, strict=True):
            try:
                self._check_root(session, old, record(row))
            except BadRequest as error:
                raise BadRequest(f"Instance {old.name!r}: {error.message}", hint=error.hint) from error
            row.config = self._with_volatile(session, old, record(row))
            after.append(record(row))
        for project in {row.project for row in rows}:
            admission.check(session, project)
        return Reexpansion(self, list(zip(before, after, strict=True)))

    def _change(self, project: str, name: str, if_match: str | None, want: Callable[[Record], _Wanted]) -> None:
        with self._locks.hold(storage_name(project, name), "update"):
            with self._db.transaction() as session:
                row = instances.get(session, project, name)
                before = record(row)
                etag.check(if_match, *etag_fields(before))
                wanted = want(before)
                projects.refuse_renaming(row.project)
                self._validate(session, row.project, before, wanted)
                row.architecture = wanted.architecture
                row.config = wanted.config
                row.devices = checks.devices_without_empty(wanted.devices)
                row.ephemeral = wanted.ephemeral
                row.description = wanted.description
                if tuple(wanted.profiles) != before.profiles:
                    scope = projects.scope(row.project, "profiles")
                    instances.set_profiles(session, row, profiles.named(session, scope, wanted.profiles))
                after = record(row)
                self._check_root(session, before, after)
                row.config = self._with_volatile(session, before, after)
                admission.check(session, row.project)
                after = record(row)
            with Reverter() as revert:
                revert.add(self._restore, before)
                self.take_over(before, after)
                revert.success()
        self._events.lifecycle("instance-updated", f"/1.0/instances/{name}", project=project)

    def _restore(self, before: Record) -> None:
        """Write an instance's record back: what it was changed to cannot be had."""
        with self._db.transaction() as session:
            row = instances.get(session, before.project, before.name)
            row.architecture, row.devices = before.architecture, before.devices
            self.restore_config(row, before)
            row.ephemeral, row.description = before.ephemeral, before.description
            scope = projects.scope(row.project, "profiles")
            instances.set_profiles(session, row, profiles.named(session, scope, before.profiles))

    def restore_config(self, row: Instance, before: Record) -> None:
        """Give a row back the configuration of an earlier record, within a transaction."""
        row.config = with_facts(before.config, record(row))

    def take_over(self, before: Record, after: Record) -> None:
        """Bring what is outside of the database in line; raises PylxcError when all is as it was there."""
        lost = lost_devices(before.expanded_devices, after.expanded_devices)
        with Reverter() as revert:
            if root_size.change(self._volumes, before, after):
                revert.add(root_size.change, self._volumes, after, before)
            if not self._apply_live(before, after) and lost:  # while it runs, its devices stay as they are
                self._devices.remove(before.project, before.name, lost, before.config)
            revert.success()

    def _validate(self, session: Session, project: Project, before: Record, wanted: _Wanted) -> None:
        checks.config(wanted.config)
        restrictions.refuse_volatile(project.config, before.name, wanted.config, before.config)
        for key in before.config:
            if key.startswith("volatile.idmap.") and key not in wanted.config:
                raise BadRequest("Volatile idmap keys can't be deleted by the user")
        self._devices.validate(wanted.devices, before.project)
        if tuple(wanted.profiles) != before.profiles:
            if len(set(wanted.profiles)) != len(wanted.profiles):
                raise BadRequest("Duplicate profile found in request")
            profiles.named(session, projects.scope(project, "profiles"), wanted.profiles)

    def _check_root(self, session: Session, before: Record, after: Record) -> None:
        self._check_expanded(after)
        if after.expanded_devices != before.expanded_devices:
            duplicates.refuse(session, after)
        pool = after.pool
        if pool != before.pool:
            raise BadRequest(f'Cannot update root disk device pool name to "{pool}"')

    def _check_expanded(self, after: Record) -> None:
        root_disk(after.expanded_devices)
        checks.config(after.expanded_config)

    def _with_volatile(self, session: Session, before: Record, after: Record) -> Config:
        """Return the instance's own configuration with the volatile keys that its devices and id map need."""
        stale = _stale(before.expanded_devices, after.expanded_devices, after.config)
        own = {key: value for key, value in after.config.items() if key not in stale}
        expanded = {key: value for key, value in after.expanded_config.items() if key not in stale}
        devices = self._devices.volatile(after.name, after.expanded_devices, expanded)
        config = {**own, **devices, **idmap.volatile(after.expanded_config, choose_idmap(session, after))}
        if cloud_init.is_new(before, after, config):
            config[INSTANCE_ID] = str(uuid.uuid4())
        return config


class Reexpansion:
    """What remains to be done for instances whose profiles have changed in the database."""

    def __init__(self, updater: Updater, records: Sequence[tuple[Record, Record]]) -> None:
        """With the instances' records before and after."""
        self._updater = updater
        self._records = records

    def apply(self) -> None:
        """Bring the instances that run in line, all or none.

        Raises:
            PylxcError: one of them cannot be; it is named.
        """
        with Reverter() as revert:
            for before, after in self._records:
                try:
                    self._updater.take_over(before, after)
                except PylxcError as error:
                    error.message = f"Instance {before.name!r}: {error.message}"
                    raise
                revert.add(self._updater.take_over, after, before)
            revert.success()

    def restore(self, session: Session) -> None:
        """Give the instances' rows back what they had of their own, within a transaction."""
        for before, _ in self._records:
            self._updater.restore_config(instances.get(session, before.project, before.name), before)


def _stale(before: Devices, after: Devices, config: Config) -> set[str]:
    """Return the volatile keys of devices that are gone or of another kind now, or that say themselves what they hold.

    What is known of a run is none of them: it goes when the container has let go of the device.
    """
    stale = set()
    for name, device in before.items():
        new = after.get(name, {})
        prefix = f"volatile.{name}."
        is_other = any(device.get(key) != new.get(key) for key in ("type", "nictype"))
        stale |= {key for key in config if key.startswith(prefix) and (is_other or key.removeprefix(prefix) in new)}
    return {key for key in stale if not is_of_run(key)}


def _replaced(found: Record, body: InstancePut) -> _Wanted:
    return _Wanted(
        architecture=checks.architecture(body.get("architecture")) or found.architecture,
        config=_with_facts_of_run(checks.without_empty(body.get("config", {})), found),
        devices=body.get("devices", {}),
        profiles=body.get("profiles") or [],
        ephemeral=body.get("ephemeral", False),
        description=body.get("description", ""),
    )


def _merged(found: Record, body: InstancePut) -> _Wanted:
    given = body.get("profiles")
    return _Wanted(
        architecture=checks.architecture(body.get("architecture")) or found.architecture,
        config=_with_facts_of_run(checks.without_empty({**found.config, **body.get("config", {})}), found),
        devices={**found.devices, **body.get("devices", {})},
        profiles=list(found.profiles) if given is None else given,
        ephemeral=body.get("ephemeral", found.ephemeral),
        description=body.get("description", found.description),
    )


def _with_facts_of_run(config: Config, found: Record) -> Config:
    """Return `config` with what is known of a running instance: a client that read it earlier must not turn it back."""
    return with_facts(config, found) if found.config.get(POWER) == "RUNNING" else config


def with_facts(config: Config, found: Record) -> Config:
    """Return `config` with what is known of an instance's run, or that there is none, as `found` has it."""
    others = {key: value for key, value in config.items() if not _is_fact_of_run(key)}
    return others | {key: value for key, value in found.config.items() if _is_fact_of_run(key)}


def _is_fact_of_run(key: str) -> bool:
    return is_of_run(key) or key in (POWER, "volatile.idmap.current", "volatile.apply_template")


def changed_keys(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Return the keys whose values differ, absent ones included."""
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
