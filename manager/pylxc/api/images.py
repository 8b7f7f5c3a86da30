"""/1.0/images: images and their aliases. See: LXD doc rest-api, images."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from urllib.parse import parse_qs, quote, unquote

from aiohttp import BodyPartReader, MultipartReader, web

from pylxc.api.access import permit_body
from pylxc.api.call import MAX_BODY, Call, Endpoint
from pylxc.api.responses import Answer, Async, Created, Encoded, Sync
from pylxc.errors import BadRequest, NotFound
from pylxc.services import etag, filters
from pylxc.services.images.importing import ImportOptions
from pylxc.services.images.render import alias_etag_fields, etag_fields
from pylxc.services.images.service import ExportFile
from pylxc.services.images.store import Staging
from pylxc.services.instances.publish import SOURCES as PUBLISHED
from pylxc.wire import images as wire
from pylxc.wire.check import check

_CHUNK = 1 << 20
_JSON_AT_MOST = min(MAX_BODY, 1 << 20)
_PLACE = ("protocol", "server", "certificate", "alias", "fingerprint")
_READING = frozenset({"GET", "HEAD"})
_TRUE = ("1", "true", "yes", "on")


async def list_images(call: Call) -> Answer:
    """GET /1.0/images."""
    all_projects = call.all_projects and call.caller.trusted
    images = await call.run(call.services.images.list, call.project, all_projects=all_projects)
    if not call.caller.trusted:
        images = [image for image in images if image["public"]]
    if expression := call.query.get("filter"):
        images = list(filters.select(images, expression))
    if call.recursion:
        return Sync(images)
    return Sync([f"/1.0/images/{image['fingerprint']}" for image in images])


async def get_image(call: Call) -> Answer:
    """GET /1.0/images/FINGERPRINT."""
    image = await _image(call)
    return Sync(image, etag.etag(*etag_fields(image)))


async def _image(call: Call) -> wire.Image:
    """Return the image in the path; to strangers there are public ones only, and no others that a prefix could fit."""
    project, fingerprint = call.project, call.params["fingerprint"]
    if call.caller.trusted:
        return await call.run(call.services.images.get, project, fingerprint)
    found = [
        image
        for image in await call.run(call.services.images.list, project)
        if image["public"] and image["fingerprint"].startswith(fingerprint)
    ]
    if not found:
        raise NotFound("Image not found")
    if len(found) > 1:
        raise BadRequest("More than one image matches")
    return found[0]


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
    permit_body(call.caller, request)
    wanted = check(request, wire.ImagesPost)
    if (wanted.get("source") or {}).get("type") in PUBLISHED:
        return Async(await call.run(call.services.publisher.create, call.project, wanted))
    return Async(await call.run(images.create, call.project, wanted))


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


async def _upload(call: Call, chunks: AsyncIterator[tuple[str, bytes]]) -> Answer:
    """Write an upload into the store's staging area as it comes; it is checked by the operation."""
    images = call.services.images
    options = _options(call)
    staging = await call.run(images.stage)
    handed_over = False
    try:
        await _receive(call, staging, chunks)
        if not staging.size:
            raise BadRequest("The image is empty")
        operation = await call.run(images.import_upload, call.project, staging, options)
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
    fingerprint = call.params["fingerprint"] if call.caller.trusted else (await _image(call))["fingerprint"]
    return await send_files(call, await call.run(call.services.images.export, call.project, fingerprint))


async def send_files(call: Call, files: Sequence[ExportFile]) -> web.StreamResponse:
    """Answer with an image's files, as clients of LXD take them."""
    if len(files) == 1:
        return web.FileResponse(
            files[0].path,
            chunk_size=_CHUNK,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f"inline;filename={_quoted(files[0].filename)}",
            },
        )
    return await _send_parts(call, files)


async def _send_parts(call: Call, files: Sequence[ExportFile]) -> web.StreamResponse:
    """Send files as multipart/form-data with a known length, from the disk as they are read."""
    boundary = secrets.token_hex(16)
    heads = [
        f"--{boundary}\r\nContent-Disposition: form-data; name={_quoted(file.part)}; "
        f"filename={_quoted(file.filename)}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        for file in files
    ]
    tail = f"--{boundary}--\r\n".encode()
    with ExitStack() as stack:
        streams = [stack.enter_context(await call.run(open, file.path, "rb", 0)) for file in files]
        sizes = [os.fstat(stream.fileno()).st_size for stream in streams]
        response = web.StreamResponse(headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
        response.content_length = sum(len(head) + size + 2 for head, size in zip(heads, sizes, strict=True)) + len(tail)
        await response.prepare(call.request)
        for head, stream in zip(heads, streams, strict=True):
            await response.write(head)
            while chunk := await call.run(stream.read, _CHUNK):
                await response.write(chunk)
            await response.write(b"\r\n")
        await response.write(tail)
        await response.write_eof()
    return response


def _quoted(text: str) -> str:
    escaped = "".join(c if c.isprintable() and c.isascii() else "_" for c in text).replace("\\", "_").replace('"', "_")
    return f'"{escaped}"'


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
    alias = await call.run(call.services.images.aliases.get, call.project, call.params["name"])
    if not call.caller.trusted:
        image = await call.run(call.services.images.get, call.project, alias["target"])
        if not image["public"]:
            raise NotFound("Image alias not found")
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
        return Sync(filters.select(json.loads(listing), expression))
    return Encoded(listing)


def _alias_url(name: str) -> str:
    return f"/1.0/images/aliases/{quote(name, safe='')}"


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(path="/1.0/images", get=list_images, post=post_images, untrusted=_READING),
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
    Endpoint(path="/1.0/images/{fingerprint}/export", get=export_image, untrusted=_READING),
    Endpoint(path="/1.0/images/{fingerprint}/refresh", post=refresh_image),
    Endpoint(path="/1.0/pylxc/images", get=list_elsewhere),
)
