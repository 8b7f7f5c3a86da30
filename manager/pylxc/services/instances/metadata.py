"""metadata.yaml and the templates of instances, for those who read and change them. See: LXD doc rest-api."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pylxc.db.engine import Database
from pylxc.errors import NotFound
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.instances import expand
from pylxc.services.instances.volume_metadata import VolumeMetadata
from pylxc.services.storage.service import StoragePools
from pylxc.wire.instances import InstanceMetadata

_NOTHING: InstanceMetadata = {
    "architecture": "",
    "creation_date": 0,
    "expiry_date": 0,
    "properties": {},
    "templates": {},
}


class InstanceMetadataFiles:
    """What came with an instance's image beside its root file system; thread-safe."""

    def __init__(self, database: Database, storage: StoragePools, events: EventBus) -> None:
        self._database = database
        self._storage = storage
        self._events = events
        self._lock = threading.Lock()

    def get(self, project: str, name: str) -> tuple[InstanceMetadata, str]:
        """Return an instance's metadata, all of it empty when there is none, and its entity tag.

        Raises:
            NotFound: no such instance.
            BadRequest: metadata.yaml is malformed.
        """
        with self._files(project, name) as files:
            found = files.read() or _NOTHING
        self._announce("retrieved", project, name)
        return found, etag.etag(found)

    def replace(self, project: str, name: str, body: InstanceMetadata, if_match: str | None) -> None:
        """Replace the metadata, empty where `body` is silent.

        Raises:
            NotFound: no such instance.
            BadRequest: it would be too large.
            PreconditionFailed: `if_match` names another state.
        """
        self._change(project, name, if_match, lambda _old: {**_NOTHING, **body})

    def merge(self, project: str, name: str, body: InstanceMetadata, if_match: str | None) -> None:
        """Change what `body` has, properties and templates by key; raises like `replace`."""

        def change(old: InstanceMetadata) -> InstanceMetadata:
            new: InstanceMetadata = {**old, **body}
            new["properties"] = {**old["properties"], **body.get("properties", {})}
            new["templates"] = {**old["templates"], **body.get("templates", {})}
            return new

        self._change(project, name, if_match, change)

    def _change(
        self, project: str, name: str, if_match: str | None, change: Callable[[InstanceMetadata], InstanceMetadata]
    ) -> None:
        with self._files(project, name) as files, self._lock:
            old = files.read() or _NOTHING
            etag.check(if_match, old)
            files.write(change(old))
        self._announce("updated", project, name)

    def templates(self, project: str, name: str) -> list[str]:
        """Return the names of the templates; raises NotFound for an instance that is not there."""
        with self._files(project, name) as files:
            return files.templates()

    def template(self, project: str, name: str, template: str) -> bytes:
        """Return a template's source.

        Raises:
            NotFound: no such instance or template.
            BadRequest: it is no file.
        """
        with self._files(project, name) as files:
            content = files.template(template)
        self._announce("template-retrieved", project, name, template)
        return content

    def write_template(self, project: str, name: str, template: str, content: bytes) -> None:
        """Make or replace a template.

        Raises:
            NotFound: no such instance.
            BadRequest: it is too large, or its name is no name.
        """
        with self._files(project, name) as files, self._lock:
            files.write_template(template, content)
        self._announce("template-created", project, name, template)

    def delete_template(self, project: str, name: str, template: str) -> None:
        """Delete a template; raises NotFound for one that is not there."""
        with self._files(project, name) as files, self._lock:
            files.delete_template(template)
        self._announce("template-deleted", project, name, template)

    @contextmanager
    def _files(self, project: str, name: str) -> Iterator[VolumeMetadata]:
        with self._database.reading() as session:
            record = expand.load(session, project, name)
        try:
            files = VolumeMetadata(self._storage.volumes.path(record.pool, project, name))
        except FileNotFoundError:
            raise NotFound("The instance's storage volume is not there") from None
        with files:
            yield files

    def _announce(self, what: str, project: str, name: str, template: str = "") -> None:
        url = f"/1.0/instances/{name}/metadata" + ("/templates" if template else "")
        context = {"path": template} if template else None
        self._events.lifecycle(f"instance-metadata-{what}", url, project=project, context=context)
