"""Make an instance known again whose volume is there and whose row is lost."""

from __future__ import annotations

from sqlalchemy.orm import Session

from pylxc.db import instances, profiles, projects, storage
from pylxc.db.engine import Database
from pylxc.db.models import Config, Devices, Instance, Profile, StorageVolume, now
from pylxc.errors import Conflict
from pylxc.paths import Paths, storage_name
from pylxc.runtime.handle import Running, Runtime
from pylxc.services.backups import document
from pylxc.services.instances import attached, backup_index, checks, duplicates, idmap
from pylxc.services.instances.attached import Attachments
from pylxc.services.instances.backup_index import Index
from pylxc.services.instances.create import host_architecture
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import (
    POWER,
    Record,
    choose_idmap,
    expand_devices,
    is_of_run,
    is_root_disk,
    record,
    root_disk,
)
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.remove import check_free


class Readopter:
    """Makes rows of what instances have written down; thread-safe."""

    def __init__(
        self,
        db: Database,
        paths: Paths,
        runtime: Runtime,
        devices: DeviceManager,
        lifecycle: Lifecycle,
        locks: InstanceLocks,
    ) -> None:
        self._db = db
        self._paths = paths
        self._runtime = runtime
        self._devices = devices
        self._lifecycle = lifecycle
        self._locks = locks

    def take(self, project: str, pool: str, index: Index, snapshots: tuple[dict[str, object], ...]) -> None:
        """Make an instance of a volume that is in its place, all or nothing; one that runs is taken over.

        Args:
            project: its project.
            pool: where the volume is.
            index: what the volume says about it.
            snapshots: as the wire has them, those whose volumes are there.

        Raises:
            NotFound: a profile does not exist.
            BadRequest: something about it is invalid here.
            Conflict: its name is taken, or it runs and cannot be taken over.
        """
        key = storage_name(project, index.name)
        given: Devices = {name: dict(device) for name, device in index.config.get("devices", {}).items()}
        checks.config(index.config.get("config", {}))
        self._devices.validate(given, project)
        with self._locks.hold(key, "recover"):
            running = self._runtime.get(key)
            has = attached.saved(self._paths.instance_run(key)) if running else None
            if running and has is None:
                raise Conflict(
                    f"Instance {index.name!r} runs, and nothing says which devices it has",
                    hint=f"end it and try again: kill -KILL {running.pid}",
                )
            if not running and self._runtime.is_held(key):
                raise Conflict(f"Instance {index.name!r} runs, out of the server's reach", hint="see the server's log")
            with self._db.transaction() as session:
                row = self._row(session, project, index, _config(index, running, has or {}), given, pool)
                row.attached = attached.to_json(has or {})
                session.add_all(backup_index.snapshot_row(row.id, snapshot) for snapshot in snapshots)
                found = record(row)
            if running:
                self._lifecycle.take_up(found)

    def _row(
        self, session: Session, project: str, index: Index, config: Config, devices: Devices, pool: str
    ) -> Instance:
        check_free(instances.claimed(session, project), index.name)
        owner = projects.get(session, project)
        wanted = profiles.named(session, projects.scope(owner, "profiles"), index.config.get("profiles") or [])
        row = Instance(
            project=owner,
            name=index.name,
            new_name="",
            state="created",
            type="container",
            architecture=checks.architecture(index.config.get("architecture")) or host_architecture(),
            description=index.config.get("description", ""),
            config=config,
            devices=_with_root(wanted, devices, index, pool),
            ephemeral=index.config.get("ephemeral", False),
            stateful=False,
            created_at=document.moment(index.created_at) or now(),
            last_used_at=None,
        )
        session.add(row)
        instances.set_profiles(session, row, wanted)
        session.add(
            StorageVolume(
                storage_pool_id=storage.pool(session, pool).id,
                project_id=owner.id,
                type="container",
                name=index.name,
                state="created",
            )
        )
        session.flush()
        found = record(row)
        root_disk(found.expanded_devices)
        checks.config(found.expanded_config)
        duplicates.refuse(session, found)
        row.config = {**row.config, **self._lacking(session, found)}
        return row

    def _lacking(self, session: Session, found: Record) -> Config:
        """Return the volatile keys that an instance needs and that it does not say."""
        devices = self._devices.volatile(found.name, found.expanded_devices, found.expanded_config)
        return {**devices, **idmap.volatile(found.expanded_config, choose_idmap(session, found))}


def _config(index: Index, running: Running | None, has: Attachments) -> Config:
    said = index.config.get("config", {})
    config = {key: value for key, value in checks.without_empty(said).items() if not is_of_run(key)}
    if running is None:
        return config
    run = {key: value for key, value in attached.volatile(has.values()).items() if is_of_run(key)}
    return {**config, **run, POWER: "RUNNING", "volatile.idmap.current": idmap.to_lxd(running.idmap)}


def _with_root(wanted: list[Profile], devices: Devices, index: Index, pool: str) -> Devices:
    """Return an instance's own devices with a root disk in `pool`, unless its profiles give it that."""
    expanded = expand_devices(wanted, devices)
    roots = {name: device for name, device in expanded.items() if is_root_disk(device)}
    if any(device.get("pool") == pool for device in roots.values()):
        return devices
    had = {name: device for name, device in index.expanded_devices.items() if is_root_disk(device)}
    name = next(iter(roots or had), "root")
    disk = {"type": "disk", "path": "/", **next(iter(had.values()), {}), "pool": pool}
    return {**devices, name: disk}
