"""Images: what is in the store, and how it gets in and out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.db.models import Clock, Image
from pylxc.drivers.image.base import Host
from pylxc.errors import BadRequest, Forbidden, NotFound, NotSupported
from pylxc.paths import Paths
from pylxc.resources import resource_dir
from pylxc.runtime.handle import Runtime
from pylxc.services import etag
from pylxc.services.events import EventBus, requestor
from pylxc.services.images.aliases import Aliases, add_alias, check_name, refuse_taken
from pylxc.services.images.exchange import Exchange
from pylxc.services.images.importing import Importer, ImportOptions, expiry
from pylxc.services.images.public import PublicImages
from pylxc.services.images.pull import Puller
from pylxc.services.images.remove import Remover
from pylxc.services.images.render import etag_fields, render
from pylxc.services.images.settings import ImageSettings
from pylxc.services.images.store import Staging, Store
from pylxc.services.images.unpack import Unpacker
from pylxc.services.images.upkeep import Upkeep
from pylxc.services.operations import Operation, Operations
from pylxc.services.storage.locks import NamedLocks
from pylxc.services.storage.service import StoragePools
from pylxc.wire import images as wire
from pylxc.wire.multipart import FilePart

_ATTEMPTS = 3
"""To find an image that is not deleted before it is used; deleted that often it is meant to be gone."""


class Images:
    """The images of this server; thread-safe.

    A project without `features.images` uses the default project's. Prefixes of fingerprints will do wherever a
    fingerprint is asked for. `setting` returns the value of a server configuration key, `clock` the time.
    """

    def __init__(
        self,
        db: Database,
        paths: Paths,
        runtime: Runtime,
        storage: StoragePools,
        operations: Operations,
        events: EventBus,
        setting: Callable[[str], str],
        clock: Clock,
    ) -> None:
        self._db = db
        self._clock = clock
        self._operations = operations
        self._events = events
        self._settings = ImageSettings(setting)
        self._store = Store(paths.images)
        self._unpacker = Unpacker(self._store, runtime)
        self._locks = NamedLocks()
        self.aliases = Aliases(db, events)
        self._importer = Importer(db, self._store, self._unpacker, self._locks, events, self._settings)
        self._remover = Remover(db, self._store, storage.volumes, self._locks, events)
        host = Host(
            recipes=(f"{paths.root}/recipes", str(resource_dir("images"))),
            cache=f"{paths.cache}/images",
            setting=setting,
        )
        self._puller = Puller(db, self._store, host, self._importer.take_pulled)
        self.public = PublicImages(db)
        self.exchange = Exchange(db, operations, self.export, setting, clock)
        self.upkeep = Upkeep(
            db=db,
            volumes=storage.volumes,
            operations=operations,
            events=events,
            puller=self._puller,
            remover=self._remover,
            unpacker=self._unpacker,
            locks=self._locks,
            settings=self._settings,
            clock=clock,
        )

    def start(self) -> None:
        """Make rows, files and volumes agree after a crash; call once, before requests come."""
        self._remover.settle()

    def list(self, project: str, *, all_projects: bool = False) -> list[wire.Image]:
        """Return a project's images, oldest upload first."""
        with self._db.reading() as session:
            scope = None if all_projects else projects.scope_name(session, project, "images")
            images = rows.of_project(session, scope)
            aliases = rows.aliases_of(session, images)
            return [render(image, aliases[image.id]) for image in images]

    def get(self, project: str, fingerprint: str) -> wire.Image:
        """Return one image.

        Raises:
            NotFound: there is none.
            BadRequest: the prefix fits several.
        """
        with self._db.reading() as session:
            image = rows.get(session, projects.scope_name(session, project, "images"), fingerprint)
            return render(image, rows.aliases_of(session, [image])[image.id])

    def info(self, project: str, fingerprint: str) -> Image:
        """Return the row of an image, for those who make instances of it; raises like `get`."""
        with self._db.reading() as session:
            return rows.get(session, projects.scope_name(session, project, "images"), fingerprint)

    def update(self, project: str, fingerprint: str, body: wire.ImagePut, if_match: str | None) -> None:
        """Set an image's properties and flags, as PUT does: what is absent becomes empty.

        Raises:
            NotFound: no such image.
            PreconditionFailed: `if_match` names another state.
        """

        def change(image: Image) -> None:
            image.public = body.get("public", False)
            image.auto_update = body.get("auto_update", False)
            image.properties = _properties(body.get("properties", {}))
            if body.get("profiles"):
                image.profiles = body["profiles"]
            if "expires_at" in body:
                image.expires_at = expiry(body["expires_at"])

        self._change(project, fingerprint, if_match, change)

    def patch(self, project: str, fingerprint: str, body: wire.ImagePut, if_match: str | None) -> None:
        """Change what `body` has; properties are merged, one set to "" goes. Raises like `update`."""

        def change(image: Image) -> None:
            image.public = body.get("public", image.public)
            image.auto_update = body.get("auto_update", image.auto_update)
            image.properties = _properties(image.properties | body.get("properties", {}))
            image.profiles = body.get("profiles") or image.profiles
            if "expires_at" in body:
                image.expires_at = expiry(body["expires_at"])

        self._change(project, fingerprint, if_match, change)

    def _change(self, project: str, fingerprint: str, if_match: str | None, change: Callable[[Image], None]) -> None:
        with self._db.transaction() as session:
            image = rows.get(session, projects.scope_name(session, project, "images"), fingerprint)
            etag.check(if_match, *etag_fields(render(image, [])))
            change(image)
            full = image.fingerprint
        self._events.lifecycle("image-updated", f"/1.0/images/{full}", project=project)

    def delete(self, project: str, fingerprint: str) -> Operation:
        """Start removing an image with its aliases and its volumes in the pools. Instances made of it live on.

        What is being made of it at this moment is waited for.

        Raises:
            NotFound: no such image.
        """
        full = self.info(project, fingerprint).fingerprint

        def run(_operation: Operation) -> None:
            if not self._remover.remove(project, full):
                raise NotFound("Image not found")

        return self._operations.start(
            "Deleting image",
            run,
            project=project,
            resources={"images": [f"/1.0/images/{full}"]},
        )

    def stage(self) -> Staging:
        """Return room for an upload; hand it to `import_upload`, or `discard` it."""
        return self._store.stage()

    def take(self, project: str, staging: Staging, options: ImportOptions) -> dict[str, Any]:
        """Make an image of a complete staging, see `Importer.take`."""
        return self._importer.take(project, staging, options)

    def new_aliases(self, project: str, aliases: Sequence[wire.ImageAlias]) -> Sequence[wire.ImageAlias]:
        """Return the aliases that an image shall get.

        Raises:
            BadRequest: one is no name.
            Conflict: one is taken.
        """
        for alias in aliases:
            check_name(alias.get("name", ""))
        with self._db.reading() as session:
            refuse_taken(session, projects.scope_name(session, project, "images"), aliases)
        return aliases

    def import_upload(
        self, project: str, staging: Staging, options: ImportOptions, *, for_strangers: bool = False
    ) -> Operation:
        """Start making an image of a complete upload; takes `staging` over.

        The operation's metadata gets `fingerprint` and `size` (bytes, as text). `for_strangers` as in
        `Operations.start`.
        """

        def run(_operation: Operation) -> dict[str, Any]:
            with staging:
                return self._importer.take(project, staging, options)

        return self._operations.start(
            "Downloading image", run, project=project, resources={}, for_strangers=for_strangers
        )

    def create(self, project: str, body: wire.ImagesPost) -> Operation:
        """Start fetching or building an image from where `body["source"]` says; metadata as for `import_upload`.

        In mode push another server is to send it: the operation is that of a token, see `Exchange.expect`.

        Raises:
            BadRequest: no source, or a malformed one.
            Conflict: an alias is taken.
            Forbidden: a recipe of one's own, from elsewhere than this host.
            NotSupported: a kind of source that this server does not do.
        """
        given = body.get("source") or {}
        if given.get("mode") == "push" and given.get("type", "") in ("", "image"):  # `lxc` says the mode only
            return self.exchange.expect(project, body, self.new_aliases(project, body.get("aliases", [])))
        source = _pulled(given)
        expires_at = expiry(body.get("expires_at"))
        self._puller.check(source)
        aliases = self.new_aliases(project, body.get("aliases", []))

        def run(operation: Operation) -> dict[str, Any]:
            found = self._puller.find(source, operation)
            fingerprint = self._puller.pull(project, found, operation)
            with self._db.transaction() as session:
                scope = projects.scope_name(session, project, "images")
                image = rows.get(session, scope, fingerprint)
                image.cached = False
                if found.source.get("alias") or not image.source:  # it may have been here by another name, or by none
                    image.source = found.source
                image.public, image.auto_update = body.get("public", False), body.get("auto_update", False)
                image.filename = body.get("filename") or image.filename
                image.expires_at = expires_at or image.expires_at
                image.properties = image.properties | body.get("properties", {})
                image.profiles = body.get("profiles") or image.profiles
                for alias in aliases:
                    add_alias(session, scope, alias["name"], alias.get("description", ""), fingerprint)
            return {"fingerprint": fingerprint, "size": str(image.size)}

        return self._operations.start("Downloading image", run, project=project, resources={}, cancellable=True)

    def export(self, project: str, fingerprint: str) -> Sequence[FilePart]:
        """Return the files of an image: one for a unified image, metadata and rootfs for a split one.

        Raises:
            NotFound: no such image.
        """
        image = self.info(project, fingerprint)
        full = image.fingerprint
        metadata, rootfs = self._store.metadata_path(full), self._store.rootfs_path(full)
        self._events.lifecycle("image-retrieved", f"/1.0/images/{full}", project=project)
        if not self._store.is_split(full):
            name = image.filename or f"{full}{self._unpacker.suffix(metadata)}"
            return [FilePart(part="metadata", path=metadata, filename=name)]
        return [
            FilePart(part="metadata", path=metadata, filename=f"meta-{full}{self._unpacker.suffix(metadata)}"),
            FilePart(part="rootfs", path=rootfs, filename=f"{full}{self._unpacker.suffix(rootfs)}"),
        ]

    def listing(self, source: Mapping[str, str]) -> bytes:
        """Return the images that another place has, as the JSON array that GET /1.0/images would list them by.

        Args:
            source: `protocol`, and as it needs them `server` and `certificate`; with `alias` or `fingerprint` the
                array has that one image only.

        Raises:
            NotSupported: no such protocol.
            NotFound: the place has no such image.
            PylxcError: it cannot be asked.
        """
        if source.get("alias") or source.get("fingerprint"):
            return json.dumps([self._puller.look(source)]).encode()
        return self._puller.listing(source)

    def resolve(self, project: str, source: dict[str, Any], operation: Operation) -> str:
        """Return the fingerprint of the image that an instance is to be made of, fetched or built if it has to be.

        Args:
            project: the instance's.
            source: of POST /1.0/instances, type "image": `alias`, `fingerprint` or `properties` of a local image, or
                with `protocol` of another place's.
            operation: gets the progress; its cancel ends the work.

        Raises:
            BadRequest: the source names nothing.
            NotFound: there is no such image.
        """
        if source.get("protocol") or source.get("server"):
            return self._pull(project, source, operation)
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            if alias := source.get("alias"):
                found = rows.find_alias(session, scope, str(alias))
                if found is None:
                    raise NotFound(f"Image {str(alias)[:100]!r} not found", hint="pylxc image list")
                return found.image.fingerprint
            if fingerprint := source.get("fingerprint"):
                return rows.get(session, scope, str(fingerprint)).fingerprint
            if wanted := source.get("properties"):
                return _newest(session, scope, wanted)
        raise BadRequest("Must specify one of alias, fingerprint or properties for init from image")

    def _pull(self, project: str, source: dict[str, Any], operation: Operation) -> str:
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            is_kept_fresh = self._settings.number(session, scope, "images.auto_update_interval") > 0
        if is_kept_fresh and (kept := self._puller.kept(project, source)):
            return kept
        return self._puller.pull(project, self._puller.find(source, operation), operation)

    @contextmanager
    def using(self, project: str, source: dict[str, Any], operation: Operation) -> Iterator[str]:
        """Yield what `resolve` returns; the image is used now, and does not go while the block runs.

        Raises like `resolve`.
        """
        for _attempt in range(_ATTEMPTS):
            fingerprint = self.resolve(project, source, operation)
            with self._locks.shared(fingerprint):
                if self._mark_used(project, fingerprint):
                    yield fingerprint
                    return
        raise NotFound("The image was deleted while it was to be used")

    def _mark_used(self, project: str, fingerprint: str) -> bool:
        with self._db.transaction() as session:
            image = rows.find(session, projects.scope_name(session, project, "images"), fingerprint)
            if image is not None:
                image.last_used_at = self._clock()
        return image is not None

    def unpack(self, fingerprint: str, target: str) -> None:
        """Unpack an image that the caller is `using` into `target`, an empty directory.

        It gets rootfs/, metadata.yaml and templates/; owners on the disk are the container's own. A failure leaves
        `target` as it was, empty.

        Raises:
            BadRequest: the archive is damaged or hostile.
            Internal: no space left.
        """
        self._unpacker.unpack(fingerprint, target)


def _pulled(source: wire.ImagesPostSource) -> dict[str, str]:
    """Return the source of POST /1.0/images as drivers take it."""
    given = {key: str(value) for key, value in source.items()}
    kind, mode = given.get("type") or "", given.get("mode") or "pull"
    if not kind:
        raise BadRequest("An image needs a source type")
    if kind == "url":
        return {"protocol": "direct", "server": given.get("url", "")}
    if kind != "image" or mode != "pull":
        raise NotSupported(f"Unsupported image source {kind!r} in mode {mode!r}")
    who = requestor.get()
    if given.get("recipe") and who and who["protocol"] != "unix":
        # Its commands run as root. Who may use the socket may do all that root may; a client on the network need not.
        raise Forbidden("A recipe of one's own is for callers on this host only", hint="name one that the server has")
    if given.get("image_type") == "virtual-machine":
        raise BadRequest("Only images of containers can be used")
    return given


def _newest(session: Session, scope: str, wanted: dict[str, str]) -> str:
    fitting = [
        image
        for image in rows.of_project(session, scope)
        if all(image.properties.get(key) == value for key, value in wanted.items())
    ]
    if not fitting:
        raise NotFound("No image has these properties")
    return max(fitting, key=lambda image: image.created_at or image.uploaded_at).fingerprint


def _properties(given: Mapping[str, str]) -> dict[str, str]:
    """Return properties without those that are set to nothing: that means unset."""
    return {key: value for key, value in given.items() if value != ""}
