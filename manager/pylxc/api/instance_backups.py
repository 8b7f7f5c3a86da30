"""/1.0/instances/NAME/backups, and backups as a stream: /1.0/instances/NAME/export (`pylxc_direct_backup`)."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from urllib.parse import quote

from aiohttp import web

from pylxc.api import descriptors
from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Sync
from pylxc.errors import BadRequest, PylxcError
from pylxc.wire.instances import InstanceBackupPost, InstanceBackupsPost

_CHUNK = 1 << 20


async def list_backups(call: Call) -> Answer:
    """Answer an instance's backups: URLs, or objects with recursion."""
    name = call.params["name"]
    found = await call.run(call.services.backups.list, call.project, name)
    return Sync(found if call.recursion else [f"/1.0/instances/{name}/backups/{quote(b['name'])}" for b in found])


async def create(call: Call) -> Answer:
    """Write a backup."""
    body = await call.body(InstanceBackupsPost)
    return Async(await call.run(call.services.backups.create, call.project, call.params["name"], body))


async def get(call: Call) -> Answer:
    """Answer one backup."""
    return Sync(await call.run(call.services.backups.get, call.project, *_names(call)))


async def post(call: Call) -> Answer:
    """Rename a backup."""
    body = await call.body(InstanceBackupPost)
    return Async(await call.run(call.services.backups.rename, call.project, *_names(call), body.get("name", "")))


async def delete(call: Call) -> Answer:
    """Delete a backup."""
    return Async(await call.run(call.services.backups.delete, call.project, *_names(call)))


async def export(call: Call) -> Answer:
    """Send a backup's file."""
    path = await call.run(call.services.backups.file, call.project, *_names(call))
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"inline;filename={quote(call.params['backup'])}",
    }
    return web.FileResponse(path, chunk_size=_CHUNK, headers=headers)


async def stream(call: Call) -> Answer:
    """Send a backup while it is made; a failure in the middle breaks the connection off."""
    query = call.query
    body: InstanceBackupsPost = {
        "instance_only": call.flag("instance-only"),
        "compression_algorithm": query.get("compression", ""),
    }
    backups = call.services.backups
    options = backups.options(body)
    found = await call.run(call.services.instances.record, call.project, call.params["name"])
    source, sink = os.pipe()

    def write() -> None:
        try:
            with open(sink, "wb", buffering=0) as file:
                backups.write(found, options, file.write)
        except BrokenPipeError:
            return  # the client has gone

    writing = asyncio.ensure_future(call.run(write))
    try:
        os.set_blocking(source, False)
        data = await descriptors.read(source)
        if not data:
            await writing  # what went wrong before the first byte is an error like any other
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        while data:
            await response.write(data)
            data = await descriptors.read(source)
        try:
            await writing
        except PylxcError as error:
            raise ConnectionResetError(str(error)) from error
    finally:
        os.close(source)
        with suppress(PylxcError, OSError):
            await writing
    await response.write_eof()
    return response


async def restore(call: Call) -> Answer:
    """Make an instance of the backup that is the request's body."""
    backups = call.services.backups
    name, pool = (_header(call, key) for key in ("name", "pool"))
    with backups.incoming() as path:
        with await call.run(open, path, "wb", 0) as file:
            async for chunk in call.request.content.iter_any():
                await call.run(file.write, chunk)
            if not file.tell():
                raise BadRequest("The backup is empty")
        return Async(await call.run(backups.take, call.project, path, name=name, pool=pool))


def _header(call: Call, name: str) -> str:
    headers = call.request.headers
    return headers.get(f"X-LXD-{name}") or headers.get(f"X-Incus-{name}") or ""


def _names(call: Call) -> tuple[str, str]:
    return call.params["name"], call.params["backup"]


_ALL = "/1.0/instances/{name}/backups"

ENDPOINTS = (
    Endpoint(path="/1.0/instances/{name}/export", get=stream),
    Endpoint(path=_ALL, get=list_backups, post=create),
    Endpoint(path=f"{_ALL}/{{backup}}", get=get, post=post, delete=delete),
    Endpoint(path=f"{_ALL}/{{backup}}/export", get=export),
)
