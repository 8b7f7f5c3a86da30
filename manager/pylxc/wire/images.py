"""Images and their aliases. See: LXD doc rest-api, images."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class ImageAlias(TypedDict, total=False):
    """An alias inside an image."""

    name: str
    description: str


class ImageSource(TypedDict):
    """Where an image is refreshed from."""

    alias: str
    certificate: str
    protocol: str
    server: str
    image_type: str


class ImagePut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/images/FINGERPRINT."""

    auto_update: bool
    properties: dict[str, str]
    public: bool
    expires_at: str | None
    profiles: list[str]


class ImagesPostSource(TypedDict, total=False):
    """Where a new image comes from; `type` is image, url, instance, container or snapshot."""

    type: str
    mode: str
    url: str
    name: str
    alias: str
    fingerprint: str
    server: str
    protocol: str
    recipe: str
    certificate: str
    secret: str
    image_type: str
    project: str


class ImagesPost(ImagePut, total=False):
    """JSON body of POST /1.0/images."""

    source: ImagesPostSource | None
    aliases: list[ImageAlias]
    compression_algorithm: str
    filename: str
    format: str


class Image(TypedDict):
    """An image as GET answers it."""

    auto_update: bool
    properties: dict[str, str]
    public: bool
    expires_at: str
    profiles: list[str]
    aliases: list[ImageAlias]
    architecture: str
    cached: bool
    filename: str
    fingerprint: str
    size: int
    update_source: NotRequired[ImageSource]
    type: str
    created_at: str
    last_used_at: str
    uploaded_at: str


class ImageExportPost(TypedDict, total=False):
    """Body of POST /1.0/images/FINGERPRINT/export: the server that the image is sent to.

    `secret` is of a token that the server has issued for it, `project` its project, `certificate` its own, in PEM.
    """

    target: str
    certificate: str
    secret: str
    project: str
    profiles: list[str] | None
    aliases: list[ImageAlias] | None


class ImageAliasesPost(TypedDict, total=False):
    """Body of POST /1.0/images/aliases; `target` is a fingerprint."""

    name: str
    description: str
    target: str
    type: str


class ImageAliasesEntryPut(TypedDict, total=False):
    """Body of PUT and PATCH of an alias."""

    description: str
    target: str


class ImageAliasesEntryPost(TypedDict, total=False):
    """Body of POST of an alias: the new name."""

    name: str


class ImageAliasesEntry(TypedDict):
    """An alias as GET answers it."""

    name: str
    description: str
    target: str
    type: str
