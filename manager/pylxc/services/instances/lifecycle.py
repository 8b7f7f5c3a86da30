"""Start, stop, restart, freeze and unfreeze; and what follows when a container ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

from pylxc.db import instances
from pylxc.db.engine import Database
from pylxc.db.models import now
from pylxc.errors import BadRequest, Conflict, Internal, NotFound, PylxcError, Unavailable
from pylxc.paths import Paths, split_key, storage_name
from pylxc.revert import Reverter
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spec import ContainerExit, IdMap
from pylxc.services.events import EventBus
from pylxc.services.guests.service import Guests
from pylxc.services.instances import attached, spec
from pylxc.services.instances import idmap as ids
from pylxc.services.instances.allotment import Allotments
from pylxc.services.instances.apparmor import AppArmor
from pylxc.services.instances.devices import DeviceManager, Prepared
from pylxc.services.instances.expand import (
    POWER,
    Record,
    claim_idmap,
    is_of_run,
    load,
    lost_devices,
    record,
)
from pylxc.services.instances.hotplug import Hotplug
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.still import KeptStill
from pylxc.services.instances.templates import PENDING, Templates
from pylxc.services.storage.service import StoragePools

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 60.0
"""How long an operation waits for the clean-up after a container that has ended."""

_REBOOT_SECONDS = 5.0
"""How long a reboot waits for another operation on the instance."""


@dataclass(slots=True)
class _Run:
    """A container from before it starts until everything of it is cleared away.

    Attributes:
        stopping: somebody stops it: what it asks for itself (a reboot) is void.
        gone: set when it has ended and is cleared away.
    """

    stopping: bool = False
    gone: threading.Event = field(default_factory=threading.Event)


class Lifecycle:
    """The running side of instances; thread-safe.

    Args:
        remove: deletes an ephemeral instance that has stopped.

    Attributes:
        on_start: called with an instance that somebody has started.
        on_crash: called with an instance that ended by itself and not cleanly; returns whether it is started again.
    """

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        db: Database,
        paths: Paths,
        runtime: Runtime,
        storage: StoragePools,
        devices: DeviceManager,
        events: EventBus,
        locks: InstanceLocks,
        templates: Templates,
        hotplug: Hotplug,
        guests: Guests,
        allotments: Allotments,
        apparmor: AppArmor,
        remove: Callable[[Record], None],
    ) -> None:
        self._db = db
        self._paths = paths
        self._runtime = runtime
        self._storage = storage
        self._devices = devices
        self._events = events
        self._locks = locks
        self._templates = templates
        self._hotplug = hotplug
        self._guests = guests
        self._allotments = allotments
        self._apparmor = apparmor
        self._remove = remove
        self._runs: dict[str, _Run] = {}
        self._early: list[tuple[str, ContainerExit]] | None = []
        self._guard = threading.Lock()
        self._still = KeptStill(paths, runtime)
        self._host_goes_down = False
        self.on_start: Callable[[Record], None] = lambda _found: None
        self.on_crash: Callable[[Record], bool] = lambda _found: False

    def status(self, key: str) -> str:
        """Return Running, Frozen or Stopped."""
        running = self._runtime.get(key)
        return running.status if running else "Stopped"

    def start(self, project: str, name: str) -> None:
        """Start an instance.

        Raises:
            NotFound: there is none.
            BadRequest: it runs already, or its configuration cannot be started.
            Conflict: it is busy.
        """
        key = storage_name(project, name)
        self.settle(key)
        with self._locks.hold(key, "start"):
            found = self._start(project, name)
        self._tell("started", project, name)
        self.on_start(found)

    def stop(self, project: str, name: str, *, force: bool, timeout: float | None) -> None:
        """Stop an instance; returns when all of it is cleared away, an ephemeral one deleted.

        Args:
            project: its project.
            name: its name.
            force: kill it instead of asking its init.
            timeout: seconds to wait for a clean stop, None for ever.

        Raises:
            NotFound: there is none.
            BadRequest: it does not run, or did not stop in time.
            Conflict: it is busy; a forced stop goes on beside a clean one that waits.
        """
        key = storage_name(project, name)
        with self._locks.hold(key, "stop", joins=("stop",) if force else ()):
            self._stop(key, force=force, timeout=timeout)
        self._tell("stopped" if force else "shutdown", project, name)

    def restart(self, project: str, name: str, *, force: bool, timeout: float | None) -> None:
        """Stop and start an instance under its present configuration; arguments and errors as `stop` has them."""
        key = storage_name(project, name)
        with self._locks.hold(key, "restart"):
            self._stop(key, force=force, timeout=timeout)
            found = self._start(project, name)
        self._tell("restarted", project, name)
        self.on_start(found)

    def freeze(self, project: str, name: str) -> None:
        """Pause every process of an instance.

        Raises:
            BadRequest: it does not run, or is frozen already.
            Conflict: it is busy.
        """
        key = storage_name(project, name)
        with self._locks.hold(key, "freeze"):
            status = self.status(key)
            if status == "Stopped":
                raise BadRequest("The instance is not running")
            if status == "Frozen":
                raise BadRequest("The instance is already frozen")
            self._runtime.freeze(key)
        self._tell("paused", project, name)

    def unfreeze(self, project: str, name: str) -> None:
        """Let a frozen instance go on.

        Raises:
            BadRequest: it is not frozen.
            Conflict: it is busy.
        """
        key = storage_name(project, name)
        with self._locks.hold(key, "unfreeze"):
            status = self.status(key)
            if status != "Frozen":
                raise BadRequest(
                    "The instance is already running" if status == "Running" else "The instance is not running"
                )
            self._runtime.unfreeze(key)
        self._tell("resumed", project, name)

    def changes_while_copied(self, found: Record) -> bool:
        """Tell whether a copy of an instance would hold files of different moments: it runs, and copying takes time."""
        return self.status(found.key) == "Running" and not self._storage.has_instant_copies(found.pool)

    def frozen(self, key: str) -> AbstractContextManager[None]:
        """Keep a running instance still while the block runs, or several that overlap; the caller holds its lock."""
        return self._still.keep(key)

    @contextmanager
    def stopped(self, project: str, name: str) -> Iterator[None]:
        """Kill an instance if it runs, and start it again after the block; the caller holds its lock.

        Its row says that it is `restoring`: should the daemon die in the middle, the next one starts it.
        """
        key = storage_name(project, name)
        runs = self._runtime.get(key) is not None
        if runs:
            self._stop(key, force=True, timeout=None)
        try:
            yield
        finally:
            if runs:
                self._start(project, name)

    def settle(self, key: str) -> None:
        """Wait until a container that has ended is cleared away, and restarted if it asked for that."""
        with self._guard:
            run = self._runs.get(key)
        if run is not None and self._runtime.get(key) is None and self._locks.holder(key) is None:
            run.gone.wait(_SETTLE_SECONDS)

    def require_stopped(self, key: str, complaint: str) -> None:
        """Return when nothing of a container is left; the caller holds its lock.

        Raises:
            BadRequest: it runs; `complaint` is the text.
        """
        with self._guard:
            run = self._runs.get(key)
        if self._runtime.get(key) is not None:
            raise BadRequest(complaint)
        if run is not None and not run.gone.wait(_SETTLE_SECONDS):
            raise Internal("The instance has ended but is not cleared away")

    def stop_with_host(self, found: Record, timeout: float) -> None:
        """Stop an instance for the host to go down, by force when it has not ended after `timeout` seconds.

        Whatever else is being done to it is not waited for any longer: the host does not wait either.

        Raises:
            PylxcError: it does not end.
        """
        end = time.monotonic() + timeout
        try:
            with self._locks.hold(found.key, "stop", wait=timeout):
                self._stop(found.key, force=False, timeout=max(0.0, end - time.monotonic()))
        except PylxcError as error:
            if self._runtime.get(found.key) is not None:
                log.warning("Stopping instance %s by force: %s", found.key, error)
                self._stop(found.key, force=True, timeout=None)
        self._tell("shutdown", found.project, found.name)

    def host_goes_down(self) -> None:
        """Start nothing any more, and let what stops from now on be started again with the host.

        That they run stays in their rows all the time: the power may be cut before the last one has stopped.
        """
        self._host_goes_down = True

    def give_up(self, project: str, name: str) -> None:
        """Note that an instance stays stopped that was to be started again."""
        self._record_stop(project, name)

    def adopt(self) -> None:
        """Take over the containers that run, then deal with the exits that were reported so far; call once at start."""
        running = self._runtime.keys()
        for key in running:
            with self._db.reading() as session:
                row = instances.find(session, *split_key(key))
                found = record(row) if row else None
            if found is None:
                # The database was lost, or is an old one: what runs is not to be lost with it.
                log.warning("Container %s runs and no instance has that name: pylxc admin recover may find it", key)
                continue
            if self._still.release(key):
                log.warning("Container %s goes on, which a daemon that died kept still", key)
            self._take_up(found)
        self._allotments.cpus.spread()
        over = {key for key, _ in self._early or ()}
        with self._db.reading() as session:
            left = [record(row) for row in instances.with_devices(session)]
        try:
            self._devices.sweep({found.key: found.expanded_devices for found in left if found.key in running})
        except PylxcError as error:
            log.warning("Failed removing rules of network devices that are gone: %s", error)
        for found in left:
            if found.key not in running and found.key not in over:
                self._forget_start(found)
        self._guests.sockets.sweep(running)
        with self._guard:
            early, self._early = self._early or [], None
        for key, ended in early:
            self.on_exit(key, ended)

    def take_up(self, found: Record) -> None:
        """Take over the running container of an instance that has only now become known; the caller holds its lock."""
        self._take_up(found)
        self._allotments.cpus.spread()

    def _take_up(self, found: Record) -> None:
        with self._guard:
            self._runs[found.key] = _Run()
        self._reach(found)
        self._allotments.adopt(found)
        try:
            self._hotplug.apply(found)
            self._hotplug.resume(found)
        except (PylxcError, OSError) as error:
            log.error("Failed bringing the devices of instance %s in line: %s", found.key, error)

    def _reach(self, found: Record) -> None:
        """Make the guest API answer again in a container that has outlived its daemon."""
        running = self._runtime.get(found.key)
        try:
            if running is not None:
                self._guests.open(found, running.idmap)
        except OSError as error:
            log.error("Failed opening the guest API of container %s: %s", found.key, error)

    def _forget_start(self, found: Record) -> None:
        """Take away what an instance was given whose start was cut off, by the end of the daemon or of the host."""
        with self._db.transaction() as session:
            row = instances.get(session, found.project, found.name)
            has, row.attached = attached.from_json(row.attached), {}
        self._apparmor.unload(found.key)
        self._stop_devices(found, has)

    def on_exit(self, key: str, ended: ContainerExit) -> None:
        """Clear away after a container; the runtime calls this, from a thread of its own, when PID 1 has ended."""
        with self._guard:
            if self._early is not None:
                self._early.append((key, ended))
                return
        self._clear_away(key, ended)

    def _start(self, project: str, name: str) -> Record:
        key = storage_name(project, name)
        if self._host_goes_down:
            raise Unavailable("The server is stopping")
        if self._runtime.get(key) is not None:
            raise BadRequest("The instance is already running")
        if self._runtime.is_held(key):
            # Nothing of it may be made anew, nor undone: its network is in use.
            raise Conflict("The instance runs already, out of the server's reach", hint="see the server's log")
        self.require_stopped(key, "The instance is already running")
        with self._db.reading() as session:
            found = load(session, project, name)
            row = instances.get(session, project, name)
            has = attached.from_json(row.attached)
        volume = self._storage.volumes.path(found.pool, project, name)
        if row.restoring and self._locks.holder(key) != "restore":  # of a daemon that died; the pool was away since
            raise Conflict(f"The instance is going back to snapshot {row.restoring!r}")
        self._stop_devices(found, has)  # of a start that was cut off
        idmap = claim_idmap(self._db, found)
        self._allotments.fit_root(found)
        self._templates.apply(found, volume, idmap)
        with Reverter() as revert:
            revert.add(self._guests.sockets.remove, key)
            self._guests.open(found, idmap)
            revert.add(self._allotments.release, key)
            share = self._allotments.prepare(found)
            revert.add(self._apparmor.unload, key)
            profile = self._apparmor.load(found)
            config = {key: value for key, value in found.expanded_config.items() if not is_of_run(key)}
            with self._devices.using_volumes(project, found.expanded_devices.values()):
                parts = self._devices.start(project, name, found.expanded_devices, config)
                container = spec.build(found, self._paths, f"{volume}/rootfs", idmap, share, parts, profile)
                self._record_start(found, idmap, parts)
                revert.add(self._record_stop, project, name)
            run = _Run()
            with self._guard:
                self._runs[key] = run
            revert.add(self._forget, key)

            def attach(pid: int) -> None:
                self._devices.attach(parts, pid)
                revert.add(self._stop_devices, found, attached.of(parts))

            self._runtime.start(container, attach, lambda pid: self._devices.enter(parts, pid))
            revert.add(self._stop_at_once, key, run)
            attached.save(self._paths.instance_run(key), attached.of(parts))
            revert.success()
        self._allotments.started(found, share)
        self._hotplug.watch(key, found.expanded_devices)
        return found

    def _stop_at_once(self, key: str, run: _Run) -> None:
        run.stopping = True
        self._runtime.kill(key)
        run.gone.wait(_SETTLE_SECONDS)

    def _stop(self, key: str, *, force: bool, timeout: float | None) -> None:
        running = self._runtime.get(key)
        with self._guard:
            run = self._runs.get(key)
        if running is None or run is None:
            raise BadRequest("The instance is already stopped")
        run.stopping = True
        if force:
            self._runtime.kill(key)
        else:
            if running.status == "Frozen":
                self._runtime.unfreeze(key)
            if not self._runtime.shutdown(key, timeout):
                run.stopping = False
                raise BadRequest('Failed shutting down instance, status is "Running": context deadline exceeded')
        if not run.gone.wait(_SETTLE_SECONDS):
            raise Internal("The instance has stopped but is not cleared away")

    def _clear_away(self, key: str, ended: ContainerExit) -> None:
        project, name = split_key(key)
        with self._guard:
            run = self._runs.get(key)
        is_expected = run is not None and run.stopping
        log.info("Container %s has ended: %s, status %s", key, ended.reason, ended.status)
        try:
            self._guests.sockets.remove(key)
            self._allotments.release(key)
            self._apparmor.unload(key)
            with self._db.reading() as session:
                found = load(session, project, name)
                row = instances.get(session, project, name)
                has, goes_on = attached.from_json(row.attached), bool(row.restoring)
            self._stop_devices(found, has)
            if ended.reason == "reboot" and not is_expected:
                self._reboot(key)
                return
            is_crash = not is_expected and ended.reason in ("crash", "killed")
            self._record_stop(project, name, comes_back=is_crash and self.on_crash(found))
            if not is_expected:
                self._tell("shutdown" if ended.reason == "halt" else "stopped", project, name)
            if found.ephemeral and not goes_on and not (is_expected and self._locks.holder(key) == "restart"):
                self._forget(key)
                self._remove(found)
        except NotFound:
            log.warning("Container %s has ended and there is no instance of that name", key)
        except Exception:
            log.exception("Failed clearing away after container %s", key)
        finally:
            if run is not None:
                with self._guard:
                    if self._runs.get(key) is run:
                        del self._runs[key]
                run.gone.set()

    def _stop_devices(self, found: Record, has: attached.Attachments) -> None:
        devices = attached.configured(has)
        config = {**found.config, **attached.volatile(has.values())}
        self._devices.stop(found.project, found.name, devices, config)
        if changed := lost_devices(devices, found.expanded_devices):
            self._devices.remove(found.project, found.name, changed, config)

    def _reboot(self, key: str) -> None:
        """Start a container again that has asked for it, under the configuration as it is now."""
        project, name = split_key(key)
        self._forget(key)
        try:
            with self._locks.hold(key, "restart", wait=_REBOOT_SECONDS):
                self._start(project, name)
        except Conflict as busy:
            log.warning("Not rebooting container %s: %s", key, busy)
        except (PylxcError, OSError) as error:
            log.error("Failed rebooting container %s: %s", key, error)
            with suppress(NotFound):
                self._record_stop(project, name)
            self._tell("stopped", project, name)
        else:
            self._tell("restarted", project, name)

    def _record_start(self, found: Record, idmap: IdMap | None, parts: Prepared) -> None:
        """Write what has to survive a crash before anything runs."""
        keys = {**parts.volatile, **ids.volatile(found.expanded_config, idmap)}
        keys["volatile.idmap.current"] = ids.to_lxd(idmap)
        with self._db.transaction() as session:
            row = instances.get(session, found.project, found.name)
            config = {**row.config, **keys, POWER: "RUNNING"}
            config.pop(PENDING, None)
            row.config = config
            row.attached = attached.to_json(attached.of(parts))
            row.last_used_at = now()

    def _record_stop(self, project: str, name: str, *, comes_back: bool = False) -> None:
        with self._db.transaction() as session:
            row = instances.get(session, project, name)
            # What is started again is so by the next daemon if need be.
            power = "RUNNING" if comes_back or row.restoring or self._host_goes_down else "STOPPED"
            row.config = {key: value for key, value in row.config.items() if not is_of_run(key)} | {POWER: power}
            row.attached = {}

    def _forget(self, key: str) -> None:
        with self._guard:
            self._runs.pop(key, None)

    def _tell(self, verb: str, project: str, name: str) -> None:
        self._events.lifecycle(f"instance-{verb}", f"/1.0/instances/{name}", project=project)
