"""Images between servers: tokens to fetch one by and to send one by, and sending. Fetching is `pull`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.db.models import Clock
from pylxc.drivers.image.base import is_fingerprint
from pylxc.errors import BadRequest, Conflict
from pylxc.services.images.importing import ImportOptions, expiry
from pylxc.services.images.tokens import ImageTokens
from pylxc.services.operations import Operation, Operations
from pylxc.wire import images as wire
from pylxc.wire.multipart import FilePart


class Exchange:
    """What other servers fetch from here and send here, and what is sent to them; thread-safe.

    Args:
        db: has the images.
        operations: are the tokens, and show what is sent.
        export: returns the files of an image by project and fingerprint.
        setting: returns the value of a server configuration key.
        clock: tells the time.
    """

    def __init__(
        self,
        db: Database,
        operations: Operations,
        export: Callable[[str, str], Sequence[FilePart]],
        setting: Callable[[str], str],
        clock: Clock,
    ) -> None:
        self._db = db
        self._operations = operations
        self._export = export
        self._setting = setting
        self.tokens = ImageTokens(operations, clock)

    def offer(self, project: str, fingerprint: str) -> Operation:
        """Return the operation of a token by which another server may fetch an image once.

        Raises:
            NotFound: no such image.
        """
        return self.tokens.for_download(*self._find(project, fingerprint))

    def expect(self, project: str, body: wire.ImagesPost, aliases: Sequence[wire.ImageAlias]) -> Operation:
        """Return the operation of a token by which another server may send an image once.

        Args:
            project: whose image it becomes.
            body: of POST /1.0/images, in mode push: what it will be.
            aliases: those of the body, checked.

        Raises:
            BadRequest: the fingerprint is none, or a malformed time.
            Conflict: the project has this image.
        """
        fingerprint = str((body.get("source") or {}).get("fingerprint") or "").lower()
        if not is_fingerprint(fingerprint):
            raise BadRequest("An image that is sent needs its whole fingerprint")
        with self._db.reading() as session:
            if rows.find(session, projects.scope_name(session, project, "images"), fingerprint):
                raise Conflict("Image with same fingerprint already exists")
        expiry(body.get("expires_at"))
        options = ImportOptions(
            public=body.get("public", False),
            fingerprint=fingerprint,
            expires_at=body.get("expires_at"),
            properties=body.get("properties", {}),
            replaces=bool(body.get("properties")),
            profiles=body.get("profiles") or ["default"],
            aliases=list(aliases),
        )
        return self.tokens.for_upload(project, fingerprint, options, body)

    def send(self, project: str, fingerprint: str, body: wire.ImageExportPost) -> Operation:
        """Start sending an image to the server that has issued a token for it.

        Raises:
            NotFound: no such image.
            BadRequest: the target is no https URL, its certificate is none, or there is no secret.
        """
        from pylxc.drivers.image.push import Target, push  # loads what speaks HTTP, as drivers are loaded: when needed

        target = Target(
            url=body.get("target", ""),
            certificate=body.get("certificate", ""),
            secret=body.get("secret", ""),
            project=body.get("project", ""),
        )
        target.check()
        scope, full = self._find(project, fingerprint)

        def run(operation: Operation) -> None:
            push(target, full, self._export(scope, full), self._setting, operation.progress, operation.check_cancelled)

        return self._operations.start(
            "Copying image",
            run,
            project=project,
            resources={"images": [f"/1.0/images/{full}"]},
            cancellable=True,
            passive=True,
        )

    def _find(self, project: str, fingerprint: str) -> tuple[str, str]:
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            return scope, rows.get(session, scope, fingerprint).fingerprint
