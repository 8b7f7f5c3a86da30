"""The services that requests reach, in one place; built by `pylxc.daemon.assembly`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylxc.services.certificates.service import Certificates
    from pylxc.services.database import DatabaseBackups
    from pylxc.services.events import EventBus
    from pylxc.services.guests.service import Guests
    from pylxc.services.images.service import Images
    from pylxc.services.initialise import Initialise
    from pylxc.services.instances.backups import InstanceBackups
    from pylxc.services.instances.console import InstanceConsole
    from pylxc.services.instances.exec import InstanceExec
    from pylxc.services.instances.files import InstanceFiles
    from pylxc.services.instances.logs import InstanceLogs
    from pylxc.services.instances.metadata import InstanceMetadataFiles
    from pylxc.services.instances.publish import Publisher
    from pylxc.services.instances.service import Instances
    from pylxc.services.instances.snapshots import Snapshots
    from pylxc.services.metrics import Metrics
    from pylxc.services.networks.service import Networks
    from pylxc.services.operations import Operations
    from pylxc.services.profiles import Profiles
    from pylxc.services.projects.service import Projects
    from pylxc.services.recovery.service import Recovery
    from pylxc.services.server import Server
    from pylxc.services.storage.service import StoragePools
    from pylxc.services.volumes.backups import VolumeBackups
    from pylxc.services.volumes.service import CustomVolumes
    from pylxc.services.volumes.snapshots import VolumeSnapshots
    from pylxc.services.warnings import Warnings


@dataclass(frozen=True, kw_only=True)
class Services:
    """Every service, by its entity; each is thread-safe and synchronous."""

    events: EventBus
    operations: Operations
    server: Server
    certificates: Certificates
    initialise: Initialise
    projects: Projects
    profiles: Profiles
    instances: Instances
    snapshots: Snapshots
    backups: InstanceBackups
    publisher: Publisher
    exec: InstanceExec
    console: InstanceConsole
    files: InstanceFiles
    logs: InstanceLogs
    metadata: InstanceMetadataFiles
    metrics: Metrics
    guests: Guests
    images: Images
    networks: Networks
    storage: StoragePools
    volumes: CustomVolumes
    volume_snapshots: VolumeSnapshots
    volume_backups: VolumeBackups
    recovery: Recovery
    database: DatabaseBackups
    warnings: Warnings
