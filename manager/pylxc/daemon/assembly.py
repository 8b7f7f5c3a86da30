"""The one place that knows how the services are put together, and in which order they come and go."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from pylxc.daemon.scheduler import Job, Scheduler
from pylxc.db.migrate import open_database
from pylxc.db.models import Clock
from pylxc.paths import Paths
from pylxc.runtime.handle import Runtime
from pylxc.runtime.proxies import Proxies
from pylxc.runtime.spec import ContainerExit
from pylxc.services import builtin_profiles
from pylxc.services.backups.store import BackupStore
from pylxc.services.certificate import ServerCertificate
from pylxc.services.certificates.service import Certificates
from pylxc.services.database import DatabaseBackups
from pylxc.services.events import EventBus, LogEvents
from pylxc.services.guests.service import Guests
from pylxc.services.images.service import Images
from pylxc.services.initialise import Initialise
from pylxc.services.instances.console import InstanceConsole
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.instances.exec import InstanceExec
from pylxc.services.instances.files import InstanceFiles
from pylxc.services.instances.logs import InstanceLogs
from pylxc.services.instances.metadata import InstanceMetadataFiles
from pylxc.services.instances.service import Instances
from pylxc.services.instances.snapshot_schedule import TAKE as SNAPSHOTS_TAKE
from pylxc.services.metrics import Metrics
from pylxc.services.networks.service import Networks
from pylxc.services.operations import Operations
from pylxc.services.profiles import Profiles
from pylxc.services.projects.service import Projects
from pylxc.services.recovery.service import Recovery
from pylxc.services.rendering.renderer import Renderer
from pylxc.services.server import Server
from pylxc.services.services import Services
from pylxc.services.storage.service import StoragePools
from pylxc.services.volumes.backups import VolumeBackups
from pylxc.services.volumes.service import CustomVolumes
from pylxc.services.volumes.snapshots import TAKE as VOLUME_SNAPSHOTS_TAKE
from pylxc.services.volumes.snapshots import VolumeSnapshots
from pylxc.services.warnings import Warnings

log = logging.getLogger(__name__)


class Assembly:
    """The services of one state directory.

    Args:
        paths: the directory.
        shutdown: `Server`'s `stop`.
        clock: returns the time, for scheduled work.

    Attributes:
        services: what the API calls.
    """

    def __init__(self, paths: Paths, shutdown: Callable[[bool], None], clock: Clock) -> None:
        self._database = open_database(paths.database)
        events = EventBus()
        self._log_events = LogEvents(events)
        logging.getLogger("pylxc").addHandler(self._log_events)
        operations = Operations(events)
        self._runtime = Runtime(paths, self._on_exit, self._on_oom)
        self._renderer = Renderer()
        storage = StoragePools(self._database, paths, events)
        volumes = CustomVolumes(self._database, storage, operations, events)
        self._backups = BackupStore(self._database, paths, clock)
        volume_snapshots = VolumeSnapshots(self._database, volumes.store, operations, self._renderer, clock)
        storage.on_return += [volumes.reconcile, volume_snapshots.reconcile]
        networks = Networks(self._database, paths, events)
        server = Server(self._database, ServerCertificate(paths), storage, events, shutdown)
        images = Images(self._database, paths, self._runtime, storage, operations, events, server.value, clock)
        self._proxies = Proxies(paths, self._runtime)
        devices = DeviceManager(self._database, paths, networks, storage, volumes, self._proxies)
        guests = Guests(self._database, images, paths)
        warnings = Warnings(self._database, events, clock)
        instances = Instances(
            db=self._database,
            paths=paths,
            runtime=self._runtime,
            storage=storage,
            images=images,
            devices=devices,
            operations=operations,
            events=events,
            guests=guests,
            server=server,
            warnings=warnings,
            renderer=self._renderer,
            clock=clock,
            backups=self._backups,
            first_use=self._first_use,
        )
        volumes.store.keep_still = instances.keep_still
        self._project_renamer = instances.project_renamer(volumes.store)
        storage.on_return.insert(0, self._project_renamer.reconcile)  # before what goes by the projects' names
        projects = Projects(self._database, operations, events, self._project_renamer.rename)
        profiles = Profiles(self._database, devices, events, instances.updater)
        self._scheduler = Scheduler(self._database, events, self._jobs, clock)
        initialise = Initialise(server, storage, networks, profiles, projects)
        self.services = Services(
            events=events,
            operations=operations,
            server=server,
            certificates=Certificates(self._database, server, operations, events, clock),
            initialise=initialise,
            projects=projects,
            profiles=profiles,
            instances=instances,
            snapshots=instances.snapshots,
            backups=instances.backups,
            publisher=instances.publisher,
            exec=InstanceExec(self._database, self._runtime, operations, events, paths),
            console=InstanceConsole(self._database, self._runtime, operations, events, paths),
            files=InstanceFiles(self._database, self._runtime, storage, events, paths),
            logs=InstanceLogs(self._database, events, paths),
            metadata=InstanceMetadataFiles(self._database, storage, events),
            metrics=Metrics(self._database, self._runtime, operations, warnings),
            guests=guests,
            images=images,
            networks=networks,
            storage=storage,
            volumes=volumes,
            volume_snapshots=volume_snapshots,
            volume_backups=VolumeBackups(
                self._backups, volumes.store, self._runtime, storage, operations, events, server
            ),
            warnings=warnings,
            database=DatabaseBackups(paths),
            recovery=Recovery(self._database, paths, storage, profiles, instances.readopter),
        )

    def start(self) -> None:
        """Bring every room up, and make what is stored and what runs agree.

        Damage in one room is logged and does not keep the others from working. The runtime comes after networks and
        storage: it tells of containers that have ended or ask for a reboot, and these need both.
        """
        services = self.services
        for name, start in (
            ("storage", services.storage.start),
            ("projects", self._project_renamer.reconcile),
            ("volumes", services.volumes.reconcile),
            ("volume snapshots", services.volume_snapshots.reconcile),
            ("backups", self._backups.reconcile),
            ("networks", services.networks.start),
            ("profiles", lambda: builtin_profiles.seed(self._database, builtin_profiles.ready())),
            ("images", services.images.start),
            ("runtime", self._runtime.open),
            ("proxies", self._proxies.open),
            ("instances", services.instances.reconcile),
        ):
            begin = time.monotonic()
            try:
                start()
            except Exception:
                log.exception("Failed starting %s", name)
            log.debug("Started %s in %.3f s", name, time.monotonic() - begin)

    def autostart(self) -> None:
        """Start the instances that are to run with the daemon, beside everything else."""
        threading.Thread(target=self.services.instances.autostart, name="autostart", daemon=True).start()

    def begin_jobs(self) -> None:
        """Begin with scheduled work."""
        self._scheduler.start()

    def end_jobs(self) -> None:
        """Begin no scheduled work any more."""
        self._scheduler.close()

    def _jobs(self) -> Iterator[Job]:
        """Return what is done every now and then, by the configuration of this moment."""
        upkeep = self.services.images.upkeep
        for project, interval in upkeep.intervals().items():
            yield Job(name=f"images-update/{project}", interval=interval, run=partial(upkeep.update, project))
        minute, schedule = dt.timedelta(minutes=1), self.services.instances.schedule
        yield Job(name=SNAPSHOTS_TAKE, interval=minute, run=schedule.take)
        yield Job(name="storage-pools-retry", interval=minute, run=self.services.storage.retry)
        yield Job(name="snapshots-expire", interval=minute, run=schedule.expire)
        yield Job(name=VOLUME_SNAPSHOTS_TAKE, interval=minute, run=self.services.volume_snapshots.take_scheduled)
        yield Job(name="volume-snapshots-expire", interval=minute, run=self.services.volume_snapshots.expire)
        yield Job(name="database-backup", interval=dt.timedelta(days=1), run=self.services.database.daily)
        yield Job(name="backups-expire", interval=minute, run=self._backups.upkeep)
        yield Job(name="images-expire", interval=dt.timedelta(hours=1), run=upkeep.expire)
        yield Job(name="warnings-expire", interval=dt.timedelta(days=1), run=self.services.warnings.expire)

    def close(self) -> None:
        """Let go of everything; containers and networks stay."""
        logging.getLogger("pylxc").removeHandler(self._log_events)
        self.services.instances.close()
        self._renderer.close()
        self._proxies.close()
        self._runtime.close()
        self.services.networks.close()
        self._database.close()

    def _first_use(self) -> str:
        return self.services.initialise.auto()

    def _on_exit(self, key: str, ended: ContainerExit) -> None:
        self.services.instances.on_exit(key, ended)

    def _on_oom(self, key: str, kills: int) -> None:
        self.services.instances.on_oom(key, kills)
