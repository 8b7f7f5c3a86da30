"""Backups below /1.0/instances/NAME and below a custom volume, and as a stream (`pylxc_direct_backup`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import quote

from aiohttp import web

from pylxc.api import descriptors
from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Sync
from pylxc.errors import BadRequest, PylxcError
from pylxc.services.backups.service import Backups
from pylxc.services.backups.store import BackupStore
from pylxc.services.operations import Operation
from pylxc.wire.backups import BackupPost, BackupsPost

_CHUNK = 1 << 20


def endpoints(
    of: str, backups: Callable[[Call], Backups], names: Callable[[Call], tuple[str, ...]]
) -> tuple[Endpoint, ...]:
    """Return the endpoints of one kind of thing's backups.

    Args:
        of: the path of a thing.
        backups: returns the service.
        names: returns the project and what names the thing in it.
    """
    handlers = _Handlers(backups, names)
    one = f"{of}/backups/{{backup}}"
    return (
        Endpoint(path=f"{of}/export", get=handlers.stream),
        Endpoint(path=f"{of}/backups", get=handlers.list, post=handlers.create),
        Endpoint(path=one, get=handlers.get, post=handlers.post, delete=handlers.delete),
        Endpoint(path=f"{one}/export", get=handlers.export),
    )


class _Takes(Protocol):
    """What makes something of a backup."""

    store: BackupStore

    def take(self, project: str, path: str, *, name: str, pool: str) -> Operation: ...


class _Handlers:
    """What is done with the backups of one kind of thing; see `endpoints`."""

    def __init__(self, backups: Callable[[Call], Backups], names: Callable[[Call], tuple[str, ...]]) -> None:
        self._backups = backups
        self._names = names

    async def list(self, call: Call) -> Answer:
        """Answer the backups: URLs, or objects with recursion."""
        backups, names = self._backups(call), self._names(call)
        return Sync(await call.run(backups.list, *names) if call.recursion else await call.run(backups.urls, *names))

    async def create(self, call: Call) -> Answer:
        """Write a backup."""
        body = await call.body(BackupsPost)
        return Async(await call.run(self._backups(call).create, self._names(call), body))

    async def get(self, call: Call) -> Answer:
        """Answer one backup."""
        return Sync(await call.run(self._backups(call).get, self._names(call), call.params["backup"]))

    async def post(self, call: Call) -> Answer:
        """Rename a backup."""
        new = (await call.body(BackupPost)).get("name", "")
        return Async(await call.run(self._backups(call).rename, self._names(call), call.params["backup"], new))

    async def delete(self, call: Call) -> Answer:
        """Delete a backup."""
        return Async(await call.run(self._backups(call).delete, self._names(call), call.params["backup"]))

    async def export(self, call: Call) -> Answer:
        """Send a backup's file."""
        path = await call.run(self._backups(call).file, self._names(call), call.params["backup"])
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"inline;filename={quote(call.params['backup'])}",
        }
        return web.FileResponse(path, chunk_size=_CHUNK, headers=headers)

    async def stream(self, call: Call) -> Answer:
        """Send a backup while it is made; a failure in the middle breaks the connection off."""
        backups = self._backups(call)
        names = self._names(call)
        subject = await call.run(backups.subject, *names)
        options = await call.run(
            backups.options,
            names[0],
            subject,
            {
                "instance_only": call.flag("instance-only"),
                "volume_only": call.flag("volume-only"),
                "optimized_storage": call.flag("optimized-storage"),
                "compression_algorithm": call.query.get("compression", ""),
            },
        )
        source, sink = os.pipe()

        def write() -> None:
            try:
                with open(sink, "wb", buffering=0) as file:
                    subject.write(options, file.write, lambda _size: None)
            except BrokenPipeError:
                return  # the client has gone

        writing = asyncio.ensure_future(call.aside(write))
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


def is_backup(call: Call) -> bool:
    """Tell whether the body of a request is a backup."""
    return call.request.content_type == "application/octet-stream" and "Content-Type" in call.request.headers


async def restore(call: Call, backups: _Takes, pool: str) -> Answer:
    """Bring back what the request's body is a backup of; `pool` is where to, "" for the backup's own."""
    name = header(call, "name")
    with backups.store.incoming() as path:
        with await call.run(open, path, "wb", 0) as file:
            async for chunk in call.request.content.iter_any():
                await call.run(file.write, chunk)
            if not file.tell():
                raise BadRequest("The backup is empty")
        return Async(await call.run(backups.take, call.project, path, name=name, pool=pool))


def header(call: Call, name: str) -> str:
    """Return what a header of the dialect's says, "" for nothing."""
    headers = call.request.headers
    return headers.get(f"X-LXD-{name}") or headers.get(f"X-Incus-{name}") or ""
