"""Making images of instances and of their snapshots."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import yaml

from pylxc import validate
from pylxc.db import snapshots as rows
from pylxc.db.engine import Database
from pylxc.errors import BadRequest
from pylxc.meter import Meter
from pylxc.services import archive
from pylxc.services.images.importing import ImportOptions, expiry
from pylxc.services.images.service import Images
from pylxc.services.instances.expand import Record, load
from pylxc.services.instances.lifecycle import Lifecycle
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.volume_metadata import VolumeMetadata
from pylxc.services.operations import Operation, Operations
from pylxc.services.server import Server
from pylxc.services.storage.service import StoragePools
from pylxc.wire.images import ImagesPost

SOURCES = ("instance", "container", "snapshot")


class Publisher:
    """Publishes instances as images; thread-safe."""

    def __init__(
        self,
        *,
        db: Database,
        storage: StoragePools,
        images: Images,
        operations: Operations,
        server: Server,
        locks: InstanceLocks,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._storage = storage
        self._images = images
        self._operations = operations
        self._server = server
        self._locks = locks
        self._lifecycle = lifecycle

    def create(self, project: str, body: ImagesPost) -> Operation:
        """Start making an image of a stopped instance, or of a snapshot; metadata as for an import.

        Raises:
            BadRequest: the source names nothing, the instance runs, or the compression is unknown.
            NotFound: no such instance or snapshot.
            Conflict: an alias is taken.
        """
        source = body.get("source") or {}
        name, _, snapshot = str(source.get("name") or "").partition("/")
        if not name or (source["type"] == "snapshot") != bool(snapshot):
            raise BadRequest("The source must name an instance, or INSTANCE/SNAPSHOT with type=snapshot")
        compression = body.get("compression_algorithm")
        compression = compression or self._server.value_for(project, "images.compression_algorithm")
        validate.compression(compression)
        expires_at = expiry(body.get("expires_at"))
        with self._db.reading() as session:
            found = load(session, project, name)
            if snapshot:
                rows.get(session, project, name, snapshot)
        if not snapshot and self._lifecycle.status(found.key) != "Stopped":
            raise BadRequest("The instance is running, stop it first or pass --force")
        options = ImportOptions(
            public=body.get("public", False),
            auto_update=body.get("auto_update", False),
            filename=body.get("filename", ""),
            expires_at=body.get("expires_at"),
            profiles=body.get("profiles") or ["default"],
            aliases=list(self._images.new_aliases(project, body.get("aliases", []))),
        )

        def run(operation: Operation) -> dict[str, Any]:
            with self._locks.hold(found.key, "publish", shared=True):
                if not snapshot:
                    self._lifecycle.require_stopped(found.key, "The instance is running")
                metadata = self._metadata(found, snapshot, body.get("properties", {}))
                metadata["expiry_date"] = int(expires_at.timestamp()) if expires_at else 0
                return self._pack(found, snapshot, metadata, compression, options, operation)

        return self._operations.start(
            "Publishing instance",
            run,
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
            cancellable=True,
        )

    def _volume(self, found: Record, snapshot: str) -> str:
        return self._storage.volumes.path(found.pool, found.project, found.name, snapshot)

    def _metadata(self, found: Record, snapshot: str, properties: dict[str, str]) -> dict[str, Any]:
        with VolumeMetadata(self._volume(found, snapshot)) as volume:
            present: dict[str, Any] = dict(volume.read() or {})
        present["architecture"] = present.get("architecture") or found.architecture
        present["creation_date"] = int(time.time())
        if properties or not present.get("properties"):
            present["properties"] = properties or {"description": f"Copy of {found.name}"}
        return present

    def _pack(
        self,
        found: Record,
        snapshot: str,
        metadata: dict[str, Any],
        compression: str,
        options: ImportOptions,
        operation: Operation,
    ) -> dict[str, Any]:
        volume = self._volume(found, snapshot)
        meter = Meter(operation.progress, "Image pack", key="create_image_from_container_pack_progress")

        def on_progress(size: int) -> None:
            operation.check_cancelled()
            meter.add(size)

        with self._images.stage() as staging, tempfile.TemporaryDirectory(dir=staging.directory) as scratch:
            with open(f"{scratch}/metadata.yaml", "w", encoding="utf-8") as file:
                yaml.safe_dump(metadata, file, sort_keys=False, allow_unicode=True)
            os.chmod(f"{scratch}/metadata.yaml", 0o644)
            members = [f"--directory={scratch}", "metadata.yaml", f"--directory={volume}"]
            members += [name for name in ("templates", "rootfs") if os.path.isdir(f"{volume}/{name}")]
            staging.begin("metadata")
            archive.write_tar(members, compression, staging.write, on_progress=on_progress)
            return self._images.take(found.project, staging, options)
