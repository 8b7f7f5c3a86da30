"""Making instances: check everything that can be checked, then image, volume and row in an operation."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from pylxc.db import instances, profiles, projects
from pylxc.db.engine import Database
from pylxc.db.models import Config, Devices, Instance, Profile, now
from pylxc.errors import BadRequest, NotSupported, PylxcError
from pylxc.paths import storage_name
from pylxc.revert import Reverter
from pylxc.services.events import EventBus
from pylxc.services.images.service import Images
from pylxc.services.instances import checks, duplicates, idmap, names, root_size
from pylxc.services.instances.copy import Copier, CopySource
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import (
    INSTANCE_ID,
    Record,
    choose_idmap,
    expand_config,
    expand_devices,
    record,
    root_disk,
    url,
)
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.remove import Remover, check_free
from pylxc.services.instances.templates import Templates, deferred
from pylxc.services.operations import Operation, Operations
from pylxc.services.projects import admission, restrictions
from pylxc.services.storage.service import StoragePools
from pylxc.wire.instances import InstancesPost

_ON_DISK = "volatile.last_state.idmap"
_MADE_ANEW = ("volatile.uuid", INSTANCE_ID, _ON_DISK)
"""Keys that a new instance gets whatever is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A create that was checked. `profiles` None asks for the image's; `fingerprint` is "" until the image is found."""

    project: str
    name: str
    architecture: str | None
    description: str
    config: Config
    devices: Devices
    profiles: list[str] | None
    ephemeral: bool
    source: dict[str, Any]
    fingerprint: str
    make: Callable[[Record], None] | None
    start: bool


class Creator:
    """Makes instances; thread-safe.

    Args:
        first_use: called before an instance is made on a server that has no storage pool: sets one up, and a network,
            and returns a line about it.
        start: starts an instance by project and name.
        require_stopped: `Lifecycle`'s.
    """

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        db: Database,
        storage: StoragePools,
        images: Images,
        devices: DeviceManager,
        operations: Operations,
        events: EventBus,
        locks: InstanceLocks,
        remover: Remover,
        first_use: Callable[[], str],
        templates: Templates,
        copier: Copier,
        start: Callable[[str, str], None],
        require_stopped: Callable[[str, str], None],
    ) -> None:
        self._db = db
        self._storage = storage
        self._images = images
        self._devices = devices
        self._operations = operations
        self._events = events
        self._locks = locks
        self._remover = remover
        self._first_use = first_use
        self._templates = templates
        self._copier = copier
        self._start = start
        self._require_stopped = require_stopped

    def create(self, project: str, body: InstancesPost) -> Operation:
        """Start making an instance; `resources.instances` of the operation names it.

        Raises:
            BadRequest: a malformed name, configuration or device; no root disk; an unknown kind of source.
            NotFound: no such project, profile, image or pool.
            Conflict: the name is taken.
            Forbidden: the project does not allow it.
            NotSupported: the dialect has this kind of source and this server does not.
        """
        told = "" if self._storage.names() else self._first_use()
        source = body.get("source") or {}
        copied = self._copier.find(project, dict(source)) if source.get("type") == "copy" else None
        if copied and source.get("refresh") and (target := self._present(project, body.get("name", ""))):
            return self._refresh(copied, target)
        if copied:
            request = self._check(
                project, self._copier.complete(project, body, copied), partial(self._copier.make, copied)
            )
        else:
            request = self._check(project, body, None)

        def run(operation: Operation) -> None:
            self._run(request, operation)

        return self._operations.start(
            "Creating instance",
            run,
            project=project,
            resources={"instances": [url(project, request.name)]},
            cancellable=True,
            metadata={"first_use": told} if told else None,
        )

    def adopt(self, project: str, body: InstancesPost, make: Callable[[Record], None], operation: Operation) -> Record:
        """Make an instance whose volumes come from elsewhere, as part of `operation`; raises as `create` does.

        Args:
            project: its project.
            body: as for `create`, without a source.
            make: makes the volumes of a record whose row is there; what it leaves when it fails goes with the row.
            operation: its cancel ends the work.
        """
        request = self._check(project, {**body, "source": {"type": "none"}}, make)
        return self._run(request, operation)

    def _present(self, project: str, name: str) -> Record | None:
        with self._db.reading() as session:
            row = instances.find(session, project, name)
            return record(row) if row else None

    def _refresh(self, source: CopySource, target: Record) -> Operation:
        """Start bringing a copy up to date that is there already."""

        def run(_operation: Operation) -> None:
            with self._locks.hold(target.key, "refresh"):
                self._require_stopped(target.key, "Cannot refresh a running instance")
                self._copier.refresh(source, target)

        return self._operations.start(
            "Refreshing instance",
            run,
            project=target.project,
            resources={"instances": [url(target.project, target.name)]},
        )

    def _check(self, project: str, body: InstancesPost, make: Callable[[Record], None] | None) -> _Request:
        if body.get("type", "container") not in ("", "container"):
            raise BadRequest(f"Instance type {body['type']!r} is not supported", hint="pylxc runs containers")
        source = dict(body.get("source") or {})
        kind = source.get("type")
        if kind not in ("image", "none", "copy"):
            if kind == "migration":
                raise NotSupported("Instances cannot be copied or moved from another server")
            raise BadRequest(f"Unknown instance source type {kind or ''!r}", hint="image, copy, none")
        fingerprint = self._find_local(project, source) if kind == "image" else ""
        given = body.get("profiles")
        config = checks.without_empty({**_sizes(body.get("instance_type", "")), **body.get("config", {})})
        checks.config(config)
        self._devices.validate(body.get("devices", {}), project)
        devices = checks.devices_without_empty(body.get("devices", {}))
        with self._db.reading() as session:
            taken = instances.claimed(session, project)
            scope = projects.scope_name(session, project, "profiles")
            name = body.get("name") or names.generate(taken)
            check_free(taken, name)
            wanted = self._profiles(project, fingerprint) if given is None else given
            if len(set(wanted)) != len(wanted):
                raise BadRequest("Duplicate profile found in request")
            found = profiles.named(session, scope, wanted)
            request = _Request(
                project=project,
                name=name,
                architecture=checks.architecture(body.get("architecture")),
                description=body.get("description", ""),
                config=config,
                devices=devices,
                profiles=given,
                ephemeral=body.get("ephemeral", False),
                source=source,
                fingerprint=fingerprint,
                make=make,
                start=body.get("start", False),
            )
            draft = _draft(request, found)
            self._storage.get(draft.pool)
            root_size.check(self._storage.volumes, draft.expanded_devices, devices)
            # Said at once: it is checked again when the row is written, and an image may have to be fetched before.
            admission.check(session, projects.get(session, project), instead=[draft])
        return request

    def _profiles(self, project: str, fingerprint: str) -> list[str]:
        """Return the profiles of an instance of which none are asked for; `fingerprint` is "" for an image to come."""
        own = self._images.get(project, fingerprint).get("profiles") if fingerprint else None
        return list(own or ["default"])

    def _find_local(self, project: str, source: dict[str, Any]) -> str:
        """Return the fingerprint of an image that should be here already; "" for one that the operation has to find."""
        if source.get("protocol") or source.get("server"):
            return ""
        if source.get("alias"):
            return self._images.aliases.get(project, str(source["alias"]))["target"]
        if source.get("fingerprint"):
            return self._images.get(project, str(source["fingerprint"]))["fingerprint"]
        if not source.get("properties"):
            raise BadRequest("Must specify one of alias, fingerprint or properties for init from image")
        return ""

    def _run(self, request: _Request, operation: Operation) -> Record:
        key = storage_name(request.project, request.name)
        is_image = request.source["type"] == "image"
        image = self._images.using(request.project, request.source, operation) if is_image else nullcontext("")
        with self._locks.hold(key, "create"), image as fingerprint, Reverter() as revert:
            request = replace(request, fingerprint=fingerprint)
            operation.check_cancelled()
            found = self._record(request)
            revert.add(self._remover.discard, found)
            if request.make:
                request.make(found)
            else:
                self._make_volume(found, request.fingerprint)
            operation.check_cancelled()
            with self._db.transaction() as session:
                instances.set_state(session, found.id, "created")
            revert.success()
        self._events.lifecycle(
            "instance-created",
            f"/1.0/instances/{request.name}",
            project=request.project,
            context={"type": "container", "location": "none", "storage-pool": found.pool},
        )
        if request.start:
            try:
                self._start(request.project, request.name)
            except PylxcError as error:
                raise type(error)(f"Created instance {request.name!r}, and failed starting it: {error}") from error
        return found

    def _make_volume(self, found: Record, fingerprint: str) -> None:
        if fingerprint:
            self._templates.prepare()
            self._storage.volumes.ensure_image(
                found.pool, fingerprint, lambda target: self._images.unpack(fingerprint, target)
            )
        size = root_size.wanted(found.expanded_devices)
        self._storage.volumes.create_instance(found.pool, found.project, found.name, fingerprint or None, size=size)

    def _record(self, request: _Request) -> Record:
        """Write the row, not to be seen yet, and return it."""
        config = dict(request.config)
        chosen, architecture = request.profiles, request.architecture
        if request.fingerprint:
            image = self._images.get(request.project, request.fingerprint)
            config = {f"image.{key}": value for key, value in image["properties"].items() if value} | config
            config["volatile.base_image"] = image["fingerprint"]
            config = deferred(config, "create")
            architecture = architecture or image["architecture"]
            if chosen is None and image.get("profiles"):
                chosen = list(image["profiles"])
        identity = str(uuid.uuid4())
        config |= {
            "volatile.uuid": identity,
            INSTANCE_ID: str(uuid.uuid4()),
            _ON_DISK: "[]",
        }
        with self._db.transaction(outlives_host=False) as session:  # its volume's row takes it along
            check_free(instances.claimed(session, request.project), request.name)
            return self._insert(session, request, config, chosen, architecture)

    def _insert(
        self, session: Session, request: _Request, config: Config, chosen: list[str] | None, architecture: str | None
    ) -> Record:
        project = projects.get(session, request.project)
        row = Instance(
            project=project,
            name=request.name,
            new_name="",
            state="creating",
            type="container",
            architecture=architecture or host_architecture(),
            description=request.description,
            config=config,
            devices=request.devices,
            ephemeral=request.ephemeral,
            stateful=False,
            last_used_at=None,
        )
        session.add(row)
        wanted = profiles.named(session, projects.scope(project, "profiles"), ["default"] if chosen is None else chosen)
        instances.set_profiles(session, row, wanted)
        session.flush()
        found = record(row)
        root_disk(found.expanded_devices)
        checks.config(found.expanded_config)
        duplicates.refuse(session, found)
        given = {key: value for key, value in request.config.items() if key not in _MADE_ANEW}
        restrictions.refuse_volatile(project.config, found.name, given, {})
        row.config = {
            **found.config,
            **self._devices.volatile(found.name, found.expanded_devices, found.expanded_config),
            **idmap.volatile(found.expanded_config, choose_idmap(session, found)),
        }
        admission.check(session, project)
        return record(row)


def _draft(request: _Request, found: list[Profile]) -> Record:
    """Return an instance as it would be, before it has a row."""
    return Record(
        id=0,
        project=request.project,
        name=request.name,
        type="container",
        architecture="",
        description=request.description,
        config=request.config,
        devices=request.devices,
        profiles=tuple(profile.name for profile in found),
        ephemeral=request.ephemeral,
        stateful=False,
        created_at=now(),
        last_used_at=None,
        expanded_config=expand_config(found, request.config),
        expanded_devices=expand_devices(found, request.devices),
    )


def host_architecture() -> str:
    """Return the host's architecture, by the kernel's name."""
    return os.uname().machine


def _sizes(instance_type: str) -> dict[str, str]:
    """Return the limits that an instance type in LXD's own form stands for: `c2-m4` is 2 CPUs and 4 GiB."""
    if not instance_type:
        return {}
    parts = re.fullmatch(r"(?:c(\d+(?:\.\d+)?))?-?(?:m(\d+(?:\.\d+)?))?", instance_type)
    if not parts or not (parts[1] or parts[2]):
        raise BadRequest(f"Unknown instance type {instance_type!r}", hint="cCPUS-mGIB, such as c2-m4")
    limits = {}
    if parts[1]:
        cpus = float(parts[1])
        limits["limits.cpu"] = str(max(1, int(cpus)))
        if cpus < 1:
            limits["limits.cpu.allowance"] = f"{max(1, int(cpus * 100))}%"
    if parts[2]:
        limits["limits.memory"] = f"{int(float(parts[2]) * 1024)}MiB"
    return limits
