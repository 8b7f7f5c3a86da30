"""Images and their aliases."""

from __future__ import annotations

import os

from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pylxc.client.client import Client, Reply
    from pylxc.client.operations import Operation


class Images:
    """The images of the client's project."""

    path = "/1.0/images"

    def __init__(self, client: Client) -> None:
        self._client = client

    def url(self, fingerprint: str, *more: str) -> str:
        """Return the path of an image, or of what is below it."""
        return "/".join([self.path, quote(fingerprint), *more])

    def resolve(self, name: str) -> str:
        """Return the fingerprint that an alias or the beginning of a fingerprint stands for.

        Raises:
            NotFound: there is no such image.
        """
        from pylxc.errors import NotFound

        try:
            return str(self.alias(name)["target"])
        except NotFound:
            return str(self.get(name)["fingerprint"])

    def get(self, fingerprint: str) -> dict[str, Any]:
        """Return an image by its fingerprint or a beginning of it that only it has."""
        return dict(self._client.get(self.url(fingerprint)))

    def read(self, fingerprint: str) -> Reply:
        """Return an image together with its etag."""
        return self._client.request("GET", self.url(fingerprint))

    def update(self, fingerprint: str, fields: dict[str, Any], *, if_match: str = "") -> None:
        """Replace properties, public, auto_update, expires_at and profiles of an image."""
        self._client.request("PUT", self.url(fingerprint), fields, if_match=if_match)

    def delete(self, fingerprint: str) -> Operation:
        """Delete an image."""
        return self._client.start("DELETE", self.url(fingerprint))

    def refresh(self, fingerprint: str) -> Operation:
        """Fetch an image anew from where it came from; `metadata["refreshed"]` tells whether it had changed."""
        return self._client.start("POST", self.url(fingerprint, "refresh"), {})

    def upload(
        self,
        files: Sequence[tuple[str, int]],
        *,
        public: bool = False,
        properties: dict[str, str] | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Operation:
        """Import an image.

        Args:
            files: (file name, descriptor) of the unified image, or of the metadata and of the rootfs.
            public: let callers that are not trusted read it.
            properties: properties beside those in the image.
            on_bytes: called with the number of bytes after each piece sent.

        Returns:
            The operation; `metadata["fingerprint"]` of it is the image.
        """
        headers = {"X-LXD-filename": quote(os.path.basename(files[0][0]))}
        if public:
            headers["X-LXD-public"] = "true"
        if properties:
            headers["X-LXD-properties"] = "&".join(f"{quote(key)}={quote(val)}" for key, val in properties.items())
        if len(files) == 1:
            return self._client.upload(self.path, files[0][1], headers=headers, on_bytes=on_bytes)
        from pylxc.client.multipart import encode
        from pylxc.wire import multipart

        boundary = multipart.boundary()
        headers["Content-Type"] = multipart.content_type(boundary)
        parts = zip(("metadata", "rootfs"), files, strict=True)
        body = encode(boundary, ((name, os.path.basename(file), fd) for name, (file, fd) in parts))
        return self._client.upload(self.path, body, headers=headers, on_bytes=on_bytes)

    def aliases(self) -> list[dict[str, Any]]:
        """Return the aliases."""
        return list(self._client.get(f"{self.path}/aliases", recursion=1))

    def alias_url(self, name: str) -> str:
        """Return the path of an alias."""
        return f"{self.path}/aliases/{quote(name)}"

    def alias(self, name: str) -> dict[str, Any]:
        """Return one alias."""
        return dict(self._client.get(self.alias_url(name)))

    def create_alias(self, name: str, target: str, description: str = "") -> None:
        """Let `name` stand for the image `target`."""
        self._client.request(
            "POST", f"{self.path}/aliases", {"name": name, "target": target, "description": description}
        )

    def point_alias(self, name: str, target: str) -> None:
        """Let `name` stand for the image `target`, whatever it stood for before."""
        from pylxc.errors import Conflict

        try:
            self.create_alias(name, target)
        except Conflict:
            self._client.request("PATCH", self.alias_url(name), {"target": target})

    def rename_alias(self, name: str, new: str) -> None:
        """Rename an alias."""
        self._client.request("POST", self.alias_url(name), {"name": new})

    def delete_alias(self, name: str) -> None:
        """Delete an alias; the image stays."""
        self._client.request("DELETE", self.alias_url(name))

    def elsewhere(self, source: dict[str, str]) -> list[dict[str, Any]]:
        """Return the images that another place has, in the shape of those that are here.

        Args:
            source: `protocol`, and as it needs them `server` (a URL) and `certificate` (PEM); with `alias` or
                `fingerprint` only that image is returned.

        Raises:
            PylxcError: the place does not answer, or has no such image.
        """
        return list(self._client.get("/1.0/pylxc/images", **source))

    def list(self) -> list[dict[str, Any]]:
        """Return the images."""
        return list(self._client.get(self.path, recursion=1))
