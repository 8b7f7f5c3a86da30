"""`pylxc admin recover`: what storage pools hold is made known again when the database is lost. See: LXD doc backup."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from pylxc.db import networks, profiles, projects, storage
from pylxc.db.engine import Database
from pylxc.db.models import StorageVolume, VolumeSnapshot
from pylxc.errors import BadRequest, NotFound, PylxcError, Unavailable
from pylxc.kernel import btrfs
from pylxc.paths import Paths
from pylxc.revert import Reverter
from pylxc.services.instances.expand import expand_devices, is_root_disk
from pylxc.services.instances.readopt import Readopter
from pylxc.services.profiles import Profiles
from pylxc.services.recovery.scan import Findings, FoundInstance, FoundVolume, pool_config, scan
from pylxc.services.storage.service import StoragePools, check_pool
from pylxc.wire.profiles import ProfilesPost
from pylxc.wire.storage import RecoverPost, RecoverResult, StoragePoolsPost, UnknownVolume

Pools = list[StoragePoolsPost]


@dataclass(slots=True)
class _Pool:
    """A pool that is looked through; `new` is what its row will say when it has none."""

    name: str
    found: Findings
    new: StoragePoolsPost | None = None
    revert: Reverter = field(default_factory=Reverter)


class Recovery:
    """Finds and takes what has no row; thread-safe, one at a time."""

    def __init__(
        self, db: Database, paths: Paths, storage: StoragePools, profiles: Profiles, instances: Readopter
    ) -> None:
        self._db = db
        self._paths = paths
        self._storage = storage
        self._profiles = profiles
        self._instances = instances
        self._lock = threading.Lock()

    def pools(self) -> Pools:
        """Return the pools that this server knows, and those that lie where it keeps pools, as they are recovered."""
        known = [self._storage.definition(name) for name in self._storage.names()]
        names = {pool["name"] for pool in known}
        found: Pools = [{"name": p["name"], "driver": p["driver"], "config": p["config"]} for p in known]
        lying = set(_listed(self._paths.storage_pools))
        lying |= {name.removesuffix(".img") for name in _listed(self._paths.disks) if name.endswith(".img")}
        for name in sorted(lying - names):
            found += self._lying(name)
        return found

    def _lying(self, name: str) -> Iterator[StoragePoolsPost]:
        """Yield the definition of what lies in a pool's place without a row, if that can be told."""
        path = self._paths.pool(name)
        if not os.path.isdir(f"{path}/containers"):
            if os.path.isfile(self._paths.disk(name)):
                yield {"name": name, "driver": "btrfs", "config": {}}
            return
        said = pool_config(os.path.realpath(path), name)
        is_loop = os.path.isfile(self._paths.disk(name))
        is_btrfs = is_loop or os.path.ismount(path) or _is_of_subvolumes(path)
        driver = said.get("driver") or ("btrfs" if is_btrfs else "dir")
        source = os.readlink(path) if os.path.islink(path) else ""
        if not source and driver == "btrfs" and not is_loop:
            source = said.get("config", {}).get("source", "")
        yield {"name": name, "driver": driver, "config": {"source": source} if source else {}}

    def validate(self, body: RecoverPost) -> RecoverResult:
        """Return what `run` would take; changes nothing.

        Raises:
            BadRequest: a pool is malformed, or is not there.
            Unavailable: a pool cannot be used.
        """
        with self._lock, ExitStack() as stack:
            return self._result(self._look(body, stack), bool(body.get("profiles")))

    def run(self, body: RecoverPost) -> RecoverResult:
        """Take what can be taken, unless something that it needs is gone; raises like `validate`.

        Every instance and volume is taken whole or not at all: one that cannot be does not keep others from it.
        """
        with self._lock, ExitStack() as stack:
            pools = self._look(body, stack)
            result = self._result(pools, bool(body.get("profiles")))
            if result["DependencyErrors"]:
                return result
            for pool in pools:
                if pool.new:
                    new = pool.new
                    self._storage.keep(pool.name, new["driver"], new.get("config", {}), new.get("description", ""))
                    pool.revert.success()
            taken: list[UnknownVolume] = []
            found = [instance for pool in pools for instance in pool.found.instances]
            if body.get("profiles"):
                self._make_profiles(found, result["Problems"])
            for volume in (volume for pool in pools for volume in pool.found.volumes):
                self._take_volume(volume)
                taken.append(_unknown(volume))
            for instance in found:
                try:
                    self._instances.take(instance.project, instance.pool, instance.index, instance.snapshots)
                    taken.append(_unknown(instance))
                except PylxcError as error:
                    result["Problems"].append(f"Instance {instance.name!r} is not taken: {error}")
            return {**result, "UnknownVolumes": taken}

    # Looking

    def _look(self, body: RecoverPost, stack: ExitStack) -> list[_Pool]:
        found: list[_Pool] = []
        for wanted in body.get("pools", []):
            name = wanted.get("name", "")
            if any(pool.name == name for pool in found):
                raise BadRequest(f"Storage pool {name!r} is named twice")
            found.append(self._look_through(name, wanted, stack))
        return found

    def _look_through(self, name: str, wanted: StoragePoolsPost, stack: ExitStack) -> _Pool:
        revert = stack.enter_context(Reverter())
        new: StoragePoolsPost | None = None
        if name not in self._storage.names():
            new = self._found_pool(name, wanted, revert)
        try:
            if new is None:
                self._storage.driver(name)
        except Unavailable as error:
            return _Pool(name, Findings(problems=[str(error)]))
        with self._db.reading() as session:
            known = {(row.type, row.project.name, row.name) for row in storage.every_volume(session, name)}
        return _Pool(name, scan(os.path.realpath(self._paths.pool(name)), name, known), new, revert)

    def _found_pool(self, name: str, wanted: StoragePoolsPost, revert: Reverter) -> StoragePoolsPost:
        """Bring a pool into reach that has no row, and return what its row is to say."""
        driver, given = wanted.get("driver", ""), wanted.get("config", {})
        config = self._storage.find(name, driver, given, revert)
        said = pool_config(os.path.realpath(self._paths.pool(name)), name, driver)
        # What it is made of is where it was found, whatever it says.
        kept = {key: value for key, value in said.get("config", {}).items() if key != "source"}
        source = {key: value for key, value in config.items() if key == "source"}
        with suppress(BadRequest):
            config = check_pool(name, driver, {**config, **kept, **given, **source})
        description = wanted.get("description") or said.get("description", "")
        return {"name": name, "driver": driver, "config": config, "description": description}

    def _result(self, pools: list[_Pool], with_profiles: bool) -> RecoverResult:
        instances = [instance for pool in pools for instance in pool.found.instances]
        volumes = [volume for pool in pools for volume in pool.found.volumes]
        lacks: list[str] = []
        warnings: list[str] = []
        names = {*self._storage.names(), *(pool.name for pool in pools)}
        with self._db.reading() as session:
            for volume in volumes:
                if not projects.exists(session, volume.project):
                    lacks.append(f'Project "{volume.project}"')
            for instance in instances:
                lacks += _lacking(session, instance, names, volumes, with_profiles)
                warnings += _lost_devices(session, instance, with_profiles)
        return {
            "UnknownVolumes": [*map(_unknown, volumes), *map(_unknown, instances)],
            "DependencyErrors": list(dict.fromkeys(lacks)),
            "Problems": [problem for pool in pools for problem in pool.found.problems],
            "Warnings": list(dict.fromkeys(warnings)),
        }

    # Taking

    def _make_profiles(self, found: list[FoundInstance], problems: list[str]) -> None:
        """Make profiles again as instances have written them down, the default profile where it is empty."""
        for instance in found:
            for profile in instance.index.profiles:
                name = profile.get("name", "")
                try:
                    present = self._profiles.get(instance.project, name)[0]
                    if name == "default" and not present["config"] and not present["devices"]:
                        self._profiles.replace(instance.project, name, profile, None)
                except NotFound:
                    self._make_profile(instance.project, profile, problems)
                except PylxcError as error:
                    problems.append(f"Profile {name!r} is not made again: {error}")

    def _make_profile(self, project: str, profile: ProfilesPost, problems: list[str]) -> None:
        try:
            self._profiles.create(project, profile)
        except PylxcError as error:
            problems.append(f"Profile {profile.get('name')!r} is not made again: {error}")

    def _take_volume(self, found: FoundVolume) -> None:
        with self._db.transaction() as session:
            row = StorageVolume(
                storage_pool_id=storage.pool(session, found.pool).id,
                project_id=projects.get(session, found.project).id,
                type="custom",
                name=found.name,
                state="created",
            )
            session.add(row)
            session.flush()
            session.add_all(
                VolumeSnapshot(storage_volume_id=row.id, name=name, state="created", created_at=created)
                for name, created in found.snapshots
            )


def _lacking(
    session: Session, found: FoundInstance, pools: set[str], volumes: list[FoundVolume], with_profiles: bool
) -> Iterator[str]:
    """Yield what an instance needs and is gone, in LXD's words."""
    if not projects.exists(session, found.project):
        yield f'Project "{found.project}"'
        return
    scope = projects.scope_name(session, found.project, "profiles")
    told = {profile.get("name") for profile in found.index.profiles} if with_profiles else set()
    for profile in found.index.config.get("profiles") or []:
        if profile not in told and profiles.find(session, scope, profile) is None:
            yield f'Profile "{profile}" in project "{found.project}"'
    for device in found.index.expanded_devices.values():
        network, pool, source = device.get("network"), device.get("pool"), device.get("source")
        if device.get("type") == "nic" and network and networks.find(session, network) is None:
            yield f'Network "{network}" in project "{found.project}"'
        if device.get("type") != "disk" or not pool:
            continue
        if pool not in pools:
            yield f'Storage pool "{pool}"'
        elif source and not _has_volume(session, pool, source, found, volumes):
            yield f'Storage volume "{source}" in storage pool "{pool}"'


def _has_volume(session: Session, pool: str, name: str, user: FoundInstance, volumes: list[FoundVolume]) -> bool:
    project = projects.scope_name(session, user.project, "storage.volumes")
    if any((each.pool, each.project, each.name) == (pool, project, name) for each in volumes):
        return True
    return storage.volume(session, pool, project, "custom", name) is not None


def _lost_devices(session: Session, found: FoundInstance, with_profiles: bool) -> Iterator[str]:
    """Yield a line for each device that an instance had from a profile and would not have any more."""
    if not projects.exists(session, found.project):
        return
    scope = projects.scope_name(session, found.project, "profiles")
    told = {profile.get("name"): profile for profile in found.index.profiles} if with_profiles else {}
    present: list[Mapping[str, Mapping[str, str]]] = []
    for name in found.index.config.get("profiles") or []:
        row = profiles.find(session, scope, name)
        is_made_anew = name in told and (row is None or (name == "default" and not row.config and not row.devices))
        if is_made_anew:
            present.append(told[name].get("devices", {}))
        elif row is not None:
            present.append(row.devices)
    now = {device for each in present for device in each}
    now |= set(expand_devices((), found.index.config.get("devices", {})))
    for name, device in found.index.expanded_devices.items():
        if name not in now and not is_root_disk(device):
            yield f'Instance "{found.name}" loses device "{name}", which a profile gave it'


def _unknown(found: FoundInstance | FoundVolume) -> UnknownVolume:
    return {
        "name": found.name,
        "type": "container" if isinstance(found, FoundInstance) else "volume",
        "snapshotCount": len(found.snapshots),
        "project": found.project,
        "pool": found.pool,
    }


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is_of_subvolumes(path: str) -> bool:
    """Return whether what lies in a pool's directory are subvolumes of btrfs."""
    directory = os.path.realpath(path)
    if not btrfs.is_btrfs(directory):
        return False
    kinds = (f"{directory}/containers", f"{directory}/images")
    return any(btrfs.is_subvolume(f"{kind}/{name}") for kind in kinds for name in _listed(kind))
