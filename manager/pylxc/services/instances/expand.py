"""An instance as its services see it: the row with its profiles laid under its own configuration."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from pylxc import paths
from pylxc.config.instance import INSTANCE
from pylxc.db import instances
from pylxc.db.engine import Database
from pylxc.db.models import Config, Devices, Instance, Profile
from pylxc.errors import BadRequest, NotFound
from pylxc.runtime.spec import IdMap
from pylxc.services.instances import idmap

POWER = "volatile.last_state.power"
"""RUNNING or STOPPED, as the instance was last seen."""

INSTANCE_ID = "volatile.cloud-init.instance-id"
"""What tells cloud-init whether it has run for this instance already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An instance as it was when it was read; nothing of it changes afterwards."""

    id: int
    project: str
    name: str
    type: str
    architecture: str
    description: str
    config: Config
    devices: Devices
    profiles: tuple[str, ...]
    ephemeral: bool
    stateful: bool
    created_at: dt.datetime
    last_used_at: dt.datetime | None
    expanded_config: Config
    expanded_devices: Devices

    @property
    def key(self) -> str:
        """The name on disk, of the cgroup and of the run directory."""
        return paths.storage_name(self.project, self.name)

    @property
    def pool(self) -> str:
        """The storage pool of the root disk.

        Raises:
            BadRequest: there is no root disk.
        """
        return root_disk(self.expanded_devices)[1]["pool"]


def url(project: str, name: str) -> str:
    """Return an instance's URL as operations and lists have it."""
    suffix = "" if project == "default" else f"?project={project}"
    return f"/1.0/instances/{name}{suffix}"


def record(row: Instance) -> Record:
    """Return the record of a row that was read with its project and profiles."""
    return _record(row, row.project.name, row.profiles)


def load(session: Session, project: str, name: str) -> Record:
    """Return the record of an instance.

    Raises:
        NotFound: there is none.
    """
    found = instances.facts(session, project, name)
    if not found:
        raise NotFound("Instance not found")
    return _record(found[0], project, found[0].profiles)


def load_all(session: Session, project: str | None) -> list[Record]:
    """Return the records of a project's instances by name, of all projects when None."""
    return [_record(facts, facts.project, facts.profiles) for facts in instances.facts(session, project)]


def _record(
    row: Instance | instances.InstanceFacts, project: str, profiles: Sequence[Profile | instances.ProfileFacts]
) -> Record:
    return Record(
        id=row.id,
        project=project,
        name=row.name,
        type=row.type,
        architecture=row.architecture,
        description=row.description,
        config=row.config,
        devices=row.devices,
        profiles=tuple(profile.name for profile in profiles),
        ephemeral=row.ephemeral,
        stateful=row.stateful,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expanded_config=expand_config(profiles, row.config),
        expanded_devices=expand_devices(profiles, row.devices),
    )


def choose_idmap(session: Session, found: Record) -> IdMap | None:
    """Return the id map of an instance's next start, None when it is privileged; see `idmap.choose`."""
    if INSTANCE.is_true(found.expanded_config, "security.privileged"):
        return None
    host, taken = idmap.host_map(), []
    if INSTANCE.is_true(found.expanded_config, "security.idmap.isolated"):
        others = (other for other in load_all(session, None) if other.id != found.id)
        taken = [used for other in others for used in idmap.held(other.expanded_config, host)]
    return idmap.choose(found.expanded_config, host, taken)


def claim_idmap(db: Database, found: Record) -> IdMap | None:
    """Return the id map that an instance is started with now; raises like `idmap.choose`.

    A range of its own that its row does not say yet is written there, so that no other start gets it.
    """
    with db.reading() as session:
        chosen = choose_idmap(session, found)
    base = "volatile.idmap.base"
    if idmap.volatile(found.expanded_config, chosen)[base] in ("0", found.config.get(base)):
        return chosen
    with db.transaction() as session:
        chosen = choose_idmap(session, found)  # others may have been quicker
        row = instances.get(session, found.project, found.name)
        row.config = {**row.config, **idmap.volatile(found.expanded_config, chosen)}
    return chosen


def expand_config(profiles: Iterable[Profile | instances.ProfileFacts], config: Mapping[str, str]) -> Config:
    """Return the profiles' keys in order, later ones winning, with the instance's own on top."""
    expanded: Config = {}
    for profile in profiles:
        expanded.update(profile.config)
    expanded.update(config)
    return expanded


def expand_devices(
    profiles: Iterable[Profile | instances.ProfileFacts], devices: Mapping[str, Mapping[str, str]]
) -> Devices:
    """Return the profiles' devices in order with the instance's own on top; a device is replaced whole, by name."""
    expanded: Devices = {}
    for profile in profiles:
        expanded.update(profile.devices)
    expanded.update({name: dict(device) for name, device in devices.items()})
    return expanded


def is_of_run(key: str) -> bool:
    """Return whether a volatile key describes a device of the container while it runs."""
    if not key.startswith("volatile.") or key.startswith("volatile.last_state."):
        return False
    return key.endswith(".host_name") or ".last_state." in key


def lost_devices(before: Devices, after: Devices) -> Devices:
    """Return the devices of `before` that are not in `after` as they were."""
    return {name: device for name, device in before.items() if after.get(name) != device}


def root_disk(devices: Mapping[str, Mapping[str, str]]) -> tuple[str, Mapping[str, str]]:
    """Return the name and configuration of the root disk among expanded devices.

    Raises:
        BadRequest: there is none or more than one.
    """
    found = [(name, device) for name, device in devices.items() if is_root_disk(device)]
    if not found:
        raise BadRequest("No root device could be found", hint="give the default profile a root disk: pylxc admin init")
    if len(found) > 1:
        raise BadRequest("Only one root device is allowed")
    if not found[0][1].get("pool"):
        raise BadRequest(f"Root disk device {found[0][0]!r} has no storage pool")
    return found[0]


def with_root(devices: Devices, expanded: Devices, former: Devices) -> Devices:
    """Return an instance's own devices with a root disk: where there are other profiles, one may be missing.

    Args:
        devices: the instance's own.
        expanded: with those of its profiles.
        former: expanded, where it has a root disk.
    """
    if any(is_root_disk(device) for device in expanded.values()):
        return devices
    return {**devices, **{name: device for name, device in former.items() if is_root_disk(device)}}


def is_root_disk(device: Mapping[str, str]) -> bool:
    """Return whether a device is a root disk."""
    return device.get("type") == "disk" and device.get("path") == "/" and not device.get("source")
