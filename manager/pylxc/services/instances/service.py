"""Instances: the one door to everything that is done with them, except exec, console and files."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pylxc.db import instances
from pylxc.db.engine import Database
from pylxc.db.models import Clock
from pylxc.errors import BadRequest, NotSupported, PylxcError
from pylxc.paths import Paths, storage_name
from pylxc.runtime.handle import Running, Runtime
from pylxc.runtime.spec import ContainerExit
from pylxc.services import etag, filters
from pylxc.services.backups.store import BackupStore
from pylxc.services.events import EventBus
from pylxc.services.guests.service import Guests
from pylxc.services.images.service import Images
from pylxc.services.instances import checks
from pylxc.services.instances.allotment import Allotments
from pylxc.services.instances.apparmor import AppArmor
from pylxc.services.instances.autorestart import AutoRestarts
from pylxc.services.instances.backup_files import BackupFiles
from pylxc.services.instances.backups import InstanceBackups
from pylxc.services.instances.boot import Boot
from pylxc.services.instances.copy import Copier
from pylxc.services.instances.create import Creator
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.expand import Record, load, load_all, url
from pylxc.services.instances.hotplug import Hotplug
from pylxc.services.instances.leftovers import Leftovers
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.live import LiveChanges
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.move import Move, Mover
from pylxc.services.instances.oom import OutOfMemory
from pylxc.services.instances.publish import Publisher
from pylxc.services.instances.readopt import Readopter
from pylxc.services.instances.remove import Remover, check_free
from pylxc.services.instances.render import etag_fields, full, render
from pylxc.services.instances.snapshot_schedule import SnapshotSchedule
from pylxc.services.instances.snapshots import Snapshots
from pylxc.services.instances.state import States
from pylxc.services.instances.templates import Templates
from pylxc.services.instances.update import Updater
from pylxc.services.instances.wait import Wait
from pylxc.services.operations import Operation, Operations
from pylxc.services.projects.rename import ProjectRenamer
from pylxc.services.rendering.renderer import Renderer
from pylxc.services.server import Server
from pylxc.services.storage.service import StoragePools
from pylxc.services.volumes.store import VolumeStore
from pylxc.services.warnings import Warnings
from pylxc.wire.instances import InstancePost, InstancePut, InstancesPost, InstanceState, InstanceStatePut

log = logging.getLogger(__name__)

_ACTIONS = {
    "start": "Starting",
    "stop": "Stopping",
    "restart": "Restarting",
    "freeze": "Freezing",
    "unfreeze": "Unfreezing",
}
_BULK_WORKERS = 8


class Instances:
    """The instances of this server; thread-safe, synchronous."""

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        db: Database,
        paths: Paths,
        runtime: Runtime,
        storage: StoragePools,
        images: Images,
        devices: DeviceManager,
        operations: Operations,
        events: EventBus,
        guests: Guests,
        server: Server,
        warnings: Warnings,
        renderer: Renderer,
        clock: Clock,
        backups: BackupStore,
        first_use: Callable[[], str],
    ) -> None:
        """`first_use` sets up storage and network on a server that has no pool; called before its first instance."""
        self._db = db
        self._storage = storage
        self._runtime = runtime
        self._operations = operations
        self._events = events
        self._locks = InstanceLocks()
        self._states = States(runtime, storage)
        self._templates = Templates(runtime, renderer)
        self._left = Leftovers(self._locks)
        apparmor = AppArmor(paths)
        self._remover = Remover(db, paths, storage, devices, apparmor, events, self._left)
        self._allotments = Allotments(paths, runtime, storage, self._locks, warnings)
        self._hotplug = Hotplug(db, paths, runtime, devices, self._locks, self._allotments.change)
        self._ooms = OutOfMemory(db, events, warnings)
        self._lifecycle = Lifecycle(
            db=db,
            paths=paths,
            runtime=runtime,
            storage=storage,
            devices=devices,
            events=events,
            locks=self._locks,
            templates=self._templates,
            hotplug=self._hotplug,
            guests=guests,
            allotments=self._allotments,
            apparmor=apparmor,
            remove=self._remover.delete,
        )
        self.snapshots = Snapshots(
            db=db,
            storage=storage,
            devices=devices,
            operations=operations,
            events=events,
            locks=self._locks,
            lifecycle=self._lifecycle,
            renderer=renderer,
            left=self._left,
        )
        self.wait = Wait(
            db=db,
            paths=paths,
            runtime=runtime,
            lifecycle=self._lifecycle,
            operations=operations,
            events=events,
            locks=self._locks,
        )
        self._mover = Mover(db, storage, devices, events, self._remover.forget)
        self.publisher = Publisher(
            db=db,
            storage=storage,
            images=images,
            operations=operations,
            server=server,
            locks=self._locks,
            lifecycle=self._lifecycle,
        )
        self._boot = Boot(db, runtime, storage, self._lifecycle, warnings)
        self._restarts = AutoRestarts(db, self._lifecycle, warnings)
        storage.on_return.append(self._on_pool_return)
        copier = Copier(db, storage, self._locks, self._lifecycle, lambda found: self._files.mark(found.id))
        self.keep_still = copier.keep_still
        live = LiveChanges(runtime, self._allotments, apparmor, self._hotplug, guests)
        self.updater = Updater(db, storage.volumes, devices, events, self._locks, live.apply)
        self._creator = Creator(
            db=db,
            storage=storage,
            images=images,
            devices=devices,
            operations=operations,
            events=events,
            locks=self._locks,
            remover=self._remover,
            first_use=first_use,
            templates=self._templates,
            copier=copier,
            start=self._lifecycle.start,
            require_stopped=self._lifecycle.require_stopped,
        )
        self._files = BackupFiles(db, storage, self.snapshots)
        self.backups = InstanceBackups(
            store=backups,
            runtime=runtime,
            storage=storage,
            operations=operations,
            events=events,
            server=server,
            locks=self._locks,
            lifecycle=self._lifecycle,
            snapshots=self.snapshots,
            creator=self._creator,
            files=self._files,
        )
        self.readopter = Readopter(db, paths, runtime, devices, self._lifecycle, self._locks)
        self.schedule = SnapshotSchedule(db, self.snapshots, self._lifecycle, clock)
        self._lifecycle.on_start = self.schedule.started

    def project_renamer(self, volumes: VolumeStore) -> ProjectRenamer:
        """Return what renames projects with the instances in them, and their `volumes`."""
        return ProjectRenamer(
            self._db, self._storage, volumes, self._locks, self._lifecycle, self._remover, self._files.mark
        )

    # Reading

    def list(
        self,
        project: str | None,
        *,
        recursion: int = 0,
        filter_text: str | None = None,
        type_: str | None = None,
    ) -> list[Any]:
        """Return a project's instances by name.

        Args:
            project: None for all projects.
            recursion: 0 for URLs, 1 for objects, 2 for objects with their state.
            filter_text: LXD's filter language.
            type_: "container" or "virtual-machine"; None for both.

        Raises:
            BadRequest: a malformed filter or type.
        """
        if type_ not in (None, "", "container", "virtual-machine"):
            raise BadRequest(f"Invalid instance type {type_!r}")
        if type_ == "virtual-machine":
            return []
        if not recursion and not filter_text:
            with self._db.reading() as session:
                return [url(p, name) for p, name, _type in instances.names(session, project)]
        with self._db.reading() as session:
            records = load_all(session, project)
        running = self._running(records)
        by_key = {found.key: found for found in records}
        rendered = {key: render(found, self._states.status(found, running.get(key))) for key, found in by_key.items()}
        chosen = filters.select(rendered.values(), filter_text)
        if not recursion:
            return [url(item["project"], item["name"]) for item in chosen]
        if recursion == 1:
            return list(chosen)
        keys = [storage_name(item["project"], item["name"]) for item in chosen]
        wanted = {key: running[key] for key in keys if key in running}
        states = self._states.read((by_key[key] for key in keys), wanted)
        snapshots = self.snapshots.of(by_key[key] for key in keys)
        return [full(rendered[key], states[key], snapshots.get(key, [])) for key in keys]

    def get(self, project: str, name: str, recursion: int = 0) -> tuple[Any, str]:
        """Return an instance and its entity tag; recursion adds state, snapshots and backups.

        Raises:
            NotFound: there is none.
        """
        found = self.record(project, name)
        running = self._running([found])
        instance = render(found, self._states.status(found, running.get(found.key)))
        tag = etag.etag(*etag_fields(found))
        if not recursion:
            return instance, tag
        state, snapshots = self._states.read([found], running), self.snapshots.of([found])
        return full(instance, state[found.key], snapshots.get(found.key, [])), tag

    def state(self, project: str, name: str) -> InstanceState:
        """Return what an instance uses now; raises NotFound."""
        found = self.record(project, name)
        return self._states.read([found], self._running([found]))[found.key]

    def record(self, project: str, name: str) -> Record:
        """Return an instance as services see it; raises NotFound."""
        with self._db.reading() as session:
            return load(session, project, name)

    # Changing

    def create(self, project: str, body: InstancesPost) -> Operation:
        """Start making an instance; see `Creator.create`."""
        return self._creator.create(project, body)

    def update(self, project: str, name: str, body: InstancePut, if_match: str | None) -> Operation:
        """Start replacing an instance's configuration, as PUT does; see `Updater.check` for what is refused at once.

        With `restore` it goes back to a snapshot instead, see `Snapshots.restore`.
        """
        if snapshot := body.get("restore"):
            etag.check(if_match, *etag_fields(self.record(project, name)))
            return self._restore(project, name, snapshot.rpartition("/")[2], body)
        self.updater.check(project, name, body, if_match)
        return self._operation(
            "Updating instance", project, name, lambda: self.updater.replace(project, name, body, if_match)
        )

    def _restore(self, project: str, name: str, snapshot: str, body: InstancePut) -> Operation:
        if body.get("stateful"):
            raise NotSupported("Stateful snapshots are not supported")
        self.snapshots.check_restore(project, name, snapshot)
        return self._operation(
            "Restoring snapshot", project, name, lambda: self.snapshots.restore(project, name, snapshot)
        )

    def patch(self, project: str, name: str, body: InstancePut, if_match: str | None) -> None:
        """Merge changes into an instance at once, as PATCH does; see `Updater.merge`."""
        self.updater.merge(project, name, body, if_match)

    def rename(self, project: str, name: str, body: InstancePost) -> Operation:
        """Start renaming an instance, or moving it to another pool or project.

        Raises:
            NotFound: there is none.
            BadRequest: it runs, or the new name is no name.
            Conflict: the new name is taken.
            Forbidden: the other project does not allow it.
            NotSupported: a move to another server.
        """
        new, pool, to_project = body.get("name", ""), body.get("pool", ""), body.get("project", "")
        if body.get("migration") and not (pool or to_project):
            raise NotSupported("Instances cannot be copied or moved to another server")
        found = self.record(project, name)
        if pool or to_project not in ("", project):
            alone = body.get("instance_only") or body.get("container_only") or False
            to = Move(pool=pool or found.pool, project=to_project or project, name=new or name, alone=alone)
            return self._move(found, to)
        with self._db.reading() as session:
            check_free(instances.claimed(session, project), new)
        self._refuse_running(found, "Renaming of running instance not allowed")

        def run() -> None:
            with self._locks.hold(found.key, "rename"), self._locks.hold(storage_name(project, new), "rename"):
                self._lifecycle.require_stopped(found.key, "Renaming of running instance not allowed")
                self._remover.rename(project, name, new)

        return self._operation("Renaming instance", project, name, run)

    def _move(self, found: Record, to: Move) -> Operation:
        self._mover.check(found, to)
        self._refuse_running(found, "Instance must be stopped to be moved")

        def run() -> None:
            with self._locks.hold_all({found.key, storage_name(to.project, to.name)}, "move"):
                self._lifecycle.require_stopped(found.key, "Instance must be stopped to be moved")
                self._mover.move(self.record(found.project, found.name), to)

        return self._operation("Moving instance", found.project, found.name, run)

    def delete(self, project: str, name: str) -> Operation:
        """Start deleting an instance.

        Raises:
            NotFound: there is none.
            BadRequest: it runs, or is protected.
        """
        found = self.record(project, name)
        self._refuse_running(found, "Instance is running")
        checks.deletable(found.expanded_config)

        def run() -> None:
            with self._locks.hold(found.key, "delete"):
                self._lifecycle.require_stopped(found.key, "Instance is running")
                current = self.record(project, name)
                checks.deletable(current.expanded_config)
                self._remover.delete(current)

        return self._operation("Deleting instance", project, name, run)

    def change_state(self, project: str, name: str, body: InstanceStatePut) -> Operation:
        """Begin to start, stop, restart, freeze or unfreeze an instance; what is wrong shows in the operation.

        Raises:
            NotFound: there is none.
            BadRequest: an unknown action.
        """
        action = _action(body)
        self.record(project, name)
        return self._operation(
            f"{_ACTIONS[action]} instance", project, name, lambda: self._act(project, name, action, body)
        )

    def change_states(self, project: str, body: InstanceStatePut) -> Operation:
        """Start changing the state of all instances of a project that are not in it yet; raises BadRequest."""
        action = _action(body)
        with self._db.reading() as session:
            found = [name for _project, name, _type in instances.names(session, project)]
        wanted = {"start": ("Stopped",), "freeze": ("Running",), "unfreeze": ("Frozen",)}.get(
            action, ("Running", "Frozen")
        )
        concerned = [n for n in found if self._lifecycle.status(storage_name(project, n)) in wanted]

        def run(_operation: Operation) -> None:
            def attempt(name: str) -> str:
                try:
                    self._act(project, name, action, body)
                except PylxcError as error:
                    return f" - Instance: {name}: {error}"
                return ""

            with ThreadPoolExecutor(_BULK_WORKERS) as pool:
                failures = [text for text in pool.map(attempt, concerned) if text]
            if failures:
                raise BadRequest("\n".join(["The following instances failed to update state:", *failures]))

        return self._operations.start(
            f"{_ACTIONS[action]} instances",
            run,
            project=project,
            resources={"instances": [url(project, name) for name in concerned]},
        )

    # The daemon's

    def on_exit(self, key: str, ended: ContainerExit) -> None:
        """Clear away after a container that has ended; the runtime calls this."""
        self._lifecycle.on_exit(key, ended)

    def on_oom(self, key: str, kills: int) -> None:
        """Tell that processes of a container were killed for want of memory; the runtime calls this."""
        self._ooms.note(key, kills)

    def reconcile(self) -> None:
        """Make rows and what runs agree; call once, after the runtime has opened and networks and pools are up."""
        self._remover.reconcile()
        self._lifecycle.adopt()
        self.snapshots.reconcile()
        self._files.open()

    def _on_pool_return(self, _pool: str) -> None:
        self._left.retry()
        self._boot.start_failed()

    def autostart(self) -> None:
        """Start what is to run with the daemon; see `Boot.start_all`."""
        self._boot.start_all()

    def stop_all(self) -> None:
        """Stop every container for the host to go down; see `Boot.stop_all`."""
        self._boot.stop_all()

    def close(self) -> None:
        """Start nothing any more, and write down what is due."""
        self._restarts.close()
        self._boot.close()
        self._files.close()
        self._hotplug.close()
        self._allotments.close()

    # Helpers

    def _operation(self, description: str, project: str, name: str, run: Callable[[], None]) -> Operation:
        return self._operations.start(
            description,
            lambda _operation: run(),
            project=project,
            resources={"instances": [url(project, name)]},
        )

    def _act(self, project: str, name: str, action: str, body: InstanceStatePut) -> None:
        timeout = body.get("timeout", 0)
        # As LXD has it: no time to stop means a forced stop, a negative one waits for ever.
        force = body.get("force", False) or timeout == 0
        patience = min(float(timeout), threading.TIMEOUT_MAX) if timeout > 0 else None
        if action == "start":
            self._lifecycle.start(project, name)
        elif action == "stop":
            if self._restarts.cancel(project, name):
                return
            self._lifecycle.stop(project, name, force=force, timeout=patience)
        elif action == "restart":
            self._lifecycle.restart(project, name, force=force, timeout=patience)
        elif action == "freeze":
            self._lifecycle.freeze(project, name)
        else:
            self._lifecycle.unfreeze(project, name)

    def _running(self, records: Sequence[Record]) -> dict[str, Running]:
        found = ((item.key, self._runtime.get(item.key)) for item in records)
        return {key: running for key, running in found if running is not None}

    def _refuse_running(self, found: Record, complaint: str) -> None:
        self._lifecycle.settle(found.key)
        if self._runtime.get(found.key) is not None:
            raise BadRequest(complaint)


def _action(body: InstanceStatePut) -> str:
    action = body.get("action", "")
    if action not in _ACTIONS:
        raise BadRequest(f"Unknown state action {action!r}", hint=", ".join(_ACTIONS))
    if body.get("stateful"):
        raise NotSupported("Stateful stop and start are not supported")
    return action
