"""/1.0/images: images and their aliases. See: LXD doc rest-api, images."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from aiohttp import BodyPartReader, MultipartReader, web

from pylxc.api.access import permit_place, permit_source
from pylxc.api.call import MAX_BODY, Call, Endpoint
from pylxc.api.responses import Answer, Async, Created, Encoded, Sync
from pylxc.errors import BadRequest, Forbidden
from pylxc.services import etag, filters
from pylxc.services.certificates.caller import Caller
from pylxc.services.images.importing import ImportOptions
from pylxc.services.images.render import alias_etag_fields, etag_fields
from pylxc.services.images.store import Staging
from pylxc.services.images.tokens import Grant
from pylxc.services.instances.publish import SOURCES as PUBLISHED
from pylxc.wire import images as wire
from pylxc.wire import multipart
from pylxc.wire.check import check

_CHUNK = 1 << 20
_SILENT_SECONDS = 30.0
"""How long another server that sends an image may send nothing."""
_SLOW_BYTES, _SLOW_SECONDS = 4096, 60.0
"""How many bytes a second have to come from it in the long run, and from when on."""
_JSON_AT_MOST = min(MAX_BODY, 1 << 20)
_PLACE = ("protocol", "server", "certificate", "alias", "fingerprint")
_TRUE = ("1", "true", "yes", "on")


async def list_images(call: Call) -> Answer:
    """GET /1.0/images."""
    found = call.services.images
    if call.caller.trusted:
        images = await call.run(found.list, call.project, all_projects=call.all_projects)
    else:
        images = await call.run(found.public.list, call.project)
    if expression := call.query.get("filter"):
        images = await call.run(filters.select, images, expression)
    if call.recursion:
        return Sync(images)
    return Sync([f"/1.0/images/{image['fingerprint']}" for image in images])


async def get_image(call: Call) -> Answer:
    """GET /1.0/images/FINGERPRINT."""
    tokens = call.services.images.exchange.tokens
    image = await call.run(_shown, call, tokens.look(call.secret, call.params["fingerprint"]))
    return Sync(image, etag.etag(*etag_fields(image)))


def _shown(call: Call, grant: Grant | None) -> wire.Image:
    """Return an image that the caller may see: a stranger a public one, or that of a token."""
    images, prefix = call.services.images, call.params["fingerprint"]
    if call.caller.trusted:
        return images.get(call.project, prefix)
    if grant is not None:
        return images.get(grant.project, grant.fingerprint)
    return images.public.get(call.project, prefix)


async def put_image(call: Call) -> Answer:
    """PUT /1.0/images/FINGERPRINT."""
    body = await call.body(wire.ImagePut)
    await call.run(call.services.images.update, call.project, call.params["fingerprint"], body, call.if_match)
    return Sync()


async def patch_image(call: Call) -> Answer:
    """PATCH /1.0/images/FINGERPRINT."""
    body = await call.body(wire.ImagePut)
    await call.run(call.services.images.patch, call.project, call.params["fingerprint"], body, call.if_match)
    return Sync()


async def delete_image(call: Call) -> Answer:
    """DELETE /1.0/images/FINGERPRINT."""
    return Async(await call.run(call.services.images.delete, call.project, call.params["fingerprint"]))


async def refresh_image(call: Call) -> Answer:
    """POST /1.0/images/FINGERPRINT/refresh."""
    return Async(await call.run(call.services.images.upkeep.refresh, call.project, call.params["fingerprint"]))


async def post_images(call: Call) -> Answer:
    """POST /1.0/images: a JSON body says where to get an image, anything else is one."""
    images = call.services.images
    if sent := _header(call, "secret"):
        grant = images.exchange.tokens.redeem(sent, _header(call, "fingerprint"))
        if grant is not None:
            return await _upload(call, _timely(_sent(call)), grant)
    if not call.caller.trusted:
        raise Forbidden("not authorized")
    if call.request.content_type.startswith("multipart/"):
        return await _upload(call, _parts(call))
    body = aiter(call.request.content.iter_any())
    head = b""
    async for chunk in body:
        head += chunk
        if not head.lstrip().startswith(b"{") or len(head) > _JSON_AT_MOST:
            return await _upload(call, _whole(head, body))
    # All of it is here, and it begins like JSON; LXD, too, takes what is no JSON for an image.
    try:
        request = json.loads(head)
    except (ValueError, RecursionError):
        return await _upload(call, _whole(head, body))
    permit_source(call.caller, request)
    wanted = check(request, wire.ImagesPost)
    if (wanted.get("source") or {}).get("type") in PUBLISHED:
        return Async(await call.run(call.services.publisher.create, call.project, wanted))
    return Async(await call.run(images.create, call.project, wanted))


def _sent(call: Call) -> AsyncIterator[tuple[str, bytes]]:
    """Return the pieces of an image that is certainly one."""
    if call.request.content_type.startswith("multipart/"):
        return _parts(call)
    return _whole(b"", aiter(call.request.content.iter_any()))


async def _timely(pieces: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[tuple[str, bytes]]:
    """Yield the pieces of another server's image; one that holds back is not waited for."""
    loop = asyncio.get_running_loop()
    begun, size = loop.time(), 0
    while True:
        least = begun + _SLOW_SECONDS + size / _SLOW_BYTES
        try:
            async with asyncio.timeout_at(min(loop.time() + _SILENT_SECONDS, least)):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise BadRequest("The image comes too slowly") from None
        if piece is None:
            return
        size += len(piece[1])
        yield piece


async def _whole(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    yield "metadata", head
    async for chunk in rest:
        yield "metadata", chunk


async def _parts(call: Call) -> AsyncIterator[tuple[str, bytes]]:
    try:
        reader = MultipartReader(call.request.headers, call.request.content)
        async for part in reader:
            if not isinstance(part, BodyPartReader) or part.name not in ("metadata", "rootfs"):
                name = part.name if isinstance(part, BodyPartReader) else "?"
                raise BadRequest(f"Invalid image upload: unexpected part {name!r}; only container images can be used")
            yield part.name, b""
            while chunk := await part.read_chunk(_CHUNK):
                yield part.name, chunk
    except (ValueError, AssertionError) as error:
        raise BadRequest(f"Invalid image upload: malformed multipart body ({error})") from error


async def _upload(call: Call, chunks: AsyncIterator[tuple[str, bytes]], grant: Grant | None = None) -> Answer:
    """Write an upload into the store's staging area as it comes; it is checked by the operation.

    With a grant it is the image that another server sends, and becomes what the grant says.
    """
    images = call.services.images
    options, project = _options(call), call.project
    if grant is not None:
        options, project = replace(grant.options, filename=options.filename), grant.project
        call.vouch()
    staging = await call.run(images.stage)
    handed_over = False
    try:
        await _receive(call, staging, chunks)
        if not staging.size:
            raise BadRequest("The image is empty")
        operation = await call.run(images.import_upload, project, staging, options, for_strangers=grant is not None)
        handed_over = True
    finally:
        if not handed_over:
            await call.run(staging.discard)
    return Async(operation)


async def _receive(call: Call, staging: Staging, chunks: AsyncIterator[tuple[str, bytes]]) -> None:
    current = ""
    waiting: list[bytes] = []
    size = 0
    async for part, chunk in chunks:
        if part != current:
            await call.run(staging.write, b"".join(waiting)) if waiting else None
            waiting, size, current = [], 0, part
            await call.run(staging.begin, part)
        waiting.append(chunk)
        size += len(chunk)
        if size >= _CHUNK:
            await call.run(staging.write, b"".join(waiting))
            waiting, size = [], 0
    if waiting:
        await call.run(staging.write, b"".join(waiting))


def _header(call: Call, name: str) -> str:
    headers = call.request.headers
    return headers.get(f"X-LXD-{name}") or headers.get(f"X-Incus-{name}") or ""


def _options(call: Call) -> ImportOptions:
    properties = parse_qs(_header(call, "properties"), keep_blank_values=True)
    aliases = parse_qs(_header(call, "aliases")).get("alias", [])
    return ImportOptions(
        public=_header(call, "public").lower() in _TRUE,
        filename=unquote(_header(call, "filename")),
        fingerprint=_header(call, "fingerprint"),
        properties={key: values[0] for key, values in properties.items()},
        aliases=[{"name": name, "description": ""} for name in aliases],
    )


async def export_image(call: Call) -> Answer:
    """GET /1.0/images/FINGERPRINT/export: the unified file, or metadata and rootfs as multipart."""
    images, prefix = call.services.images, call.params["fingerprint"]
    if call.caller.trusted:
        return await send_files(call, await call.run(images.export, call.project, prefix))
    with images.exchange.tokens.fetching(call.secret, prefix) as grant:
        if grant is not None:
            call.vouch()
        image = await call.run(_shown, call, grant)
        project = grant.project if grant else call.project
        return await send_files(call, await call.run(images.export, project, image["fingerprint"]))


async def push_image(call: Call) -> Answer:
    """POST /1.0/images/FINGERPRINT/export: send it to another server."""
    body = await call.body(wire.ImageExportPost, _permit_target)
    return Async(await call.run(call.services.images.exchange.send, call.project, call.params["fingerprint"], body))


def _permit_target(caller: Caller, body: Any) -> None:
    """Permit a body whose project is another server's."""
    target = body.get("target") if isinstance(body, dict) else None
    permit_place(caller, target if isinstance(target, str) else "")


async def post_secret(call: Call) -> Answer:
    """POST /1.0/images/FINGERPRINT/secret: a token by which another server fetches it."""
    return Async(await call.run(call.services.images.exchange.offer, call.project, call.params["fingerprint"]))


async def send_files(call: Call, files: Sequence[multipart.FilePart]) -> web.StreamResponse:
    """Send an image's files, as clients of LXD take them, and return the answer that was sent.

    It is all sent when the handler returns: some connections have no time for it after their request.
    """
    boundary = multipart.boundary()
    if len(files) > 1:
        frames, headers = multipart.frames(boundary, files), {"Content-Type": multipart.content_type(boundary)}
    else:
        disposition = f"inline;filename={multipart.quoted(files[0].filename)}"
        frames = [b"", b""]
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": disposition}
    with ExitStack() as stack:
        streams = [stack.enter_context(await call.run(open, file.path, "rb", 0)) for file in files]
        sizes = [os.fstat(stream.fileno()).st_size for stream in streams]
        response = web.StreamResponse(headers=headers)
        response.content_length = sum(sizes) + sum(len(frame) for frame in frames)
        await response.prepare(call.request)
        for stream, frame in zip(streams, frames, strict=False):
            await response.write(frame)
            while chunk := await call.run(stream.read, _CHUNK):
                await response.write(chunk)
        await response.write(frames[-1])
        await response.write_eof()
    return response


async def list_aliases(call: Call) -> Answer:
    """GET /1.0/images/aliases."""
    aliases = await call.run(call.services.images.aliases.list, call.project)
    if call.recursion:
        return Sync(aliases)
    return Sync([_alias_url(alias["name"]) for alias in aliases])


async def post_aliases(call: Call) -> Answer:
    """POST /1.0/images/aliases."""
    body = await call.body(wire.ImageAliasesPost)
    return Created(_alias_url(await call.run(call.services.images.aliases.create, call.project, body)))


async def get_alias(call: Call) -> Answer:
    """GET /1.0/images/aliases/NAME."""
    images = call.services.images
    aliases = images.aliases.get if call.caller.trusted else images.public.alias
    alias = await call.run(aliases, call.project, call.params["name"])
    return Sync(alias, etag.etag(*alias_etag_fields(alias)))


async def put_alias(call: Call) -> Answer:
    """PUT /1.0/images/aliases/NAME."""
    body = await call.body(wire.ImageAliasesEntryPut)
    if not body.get("target"):
        raise BadRequest("An alias needs a target: an image's fingerprint")
    body = {"target": body["target"], "description": body.get("description", "")}
    await call.run(call.services.images.aliases.update, call.project, call.params["name"], body, call.if_match)
    return Sync()


async def patch_alias(call: Call) -> Answer:
    """PATCH /1.0/images/aliases/NAME."""
    body = await call.body(wire.ImageAliasesEntryPut)
    await call.run(call.services.images.aliases.update, call.project, call.params["name"], body, call.if_match)
    return Sync()


async def post_alias(call: Call) -> Answer:
    """POST /1.0/images/aliases/NAME: rename."""
    body = await call.body(wire.ImageAliasesEntryPost)
    aliases = call.services.images.aliases
    return Created(_alias_url(await call.run(aliases.rename, call.project, call.params["name"], body.get("name", ""))))


async def delete_alias(call: Call) -> Answer:
    """DELETE /1.0/images/aliases/NAME."""
    await call.run(call.services.images.aliases.delete, call.project, call.params["name"])
    return Sync()


async def list_elsewhere(call: Call) -> Answer:
    """GET /1.0/pylxc/images: the images of another place, in the shape of GET /1.0/images?recursion=1."""
    source = {key: call.query.get(key, "") for key in _PLACE}
    listing = await call.run(call.services.images.listing, source)
    if expression := call.query.get("filter"):
        return Sync(await call.run(lambda: filters.select(json.loads(listing), expression)))
    return Encoded(listing)


def _alias_url(name: str) -> str:
    return f"/1.0/images/aliases/{quote(name, safe='')}"


_READING = frozenset({"GET", "HEAD"})
ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(path="/1.0/images", get=list_images, post=post_images, untrusted=_READING | {"POST"}),
    Endpoint(path="/1.0/images/aliases", get=list_aliases, post=post_aliases),
    Endpoint(
        path="/1.0/images/aliases/{name:*}",
        get=get_alias,
        put=put_alias,
        patch=patch_alias,
        post=post_alias,
        delete=delete_alias,
        untrusted=_READING,
    ),
    Endpoint(
        path="/1.0/images/{fingerprint}",
        get=get_image,
        put=put_image,
        patch=patch_image,
        delete=delete_image,
        untrusted=_READING,
    ),
    Endpoint(path="/1.0/images/{fingerprint}/export", get=export_image, post=push_image, untrusted=_READING),
    Endpoint(path="/1.0/images/{fingerprint}/secret", post=post_secret),
    Endpoint(path="/1.0/images/{fingerprint}/refresh", post=refresh_image),
    Endpoint(path="/1.0/pylxc/images", get=list_elsewhere),
)
