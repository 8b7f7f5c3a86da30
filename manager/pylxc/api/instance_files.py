"""/1.0/instances/NAME/files: one path per request, whole trees with the extension `pylxc_file_tree`.

The same of a snapshot (`pylxc_snapshot_files`), to be read only.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pylxc.api import descriptors, responses
from pylxc.api.call import Call, Endpoint
from pylxc.api.http import plain_socket
from pylxc.api.responses import Answer, Sync
from pylxc.errors import BadRequest, Internal, PylxcError
from pylxc.services.instances.files import SMALL, NewFile, Transfer

_PIPE_BYTES = 1 << 20
_MAX_LISTING = 64 << 20
_MAX_TARGET = 4096
_BIG = 1 << 20
_PREFIXES = ("X-LXD-", "X-Incus-")


async def get(call: Call) -> Answer:
    """Answer a file's content, a directory's names or a link's target, with headers that tell what it is."""
    files, path = call.services.files, _path(call)
    if call.flag("tree"):
        return await _send_tree(call, path)
    where = (call.project, call.params["name"], path, call.params.get("snapshot", ""))
    transfer = await call.run(files.read, *where)
    head = transfer.head
    if call.request.method == "HEAD":
        transfer.abandon()
        return web.Response(headers=_headers(head) | {"Content-Length": str(head["size"])}, content_type=_OCTETS)
    files.retrieved(*where)
    if head["type"] == "file":
        return await _send_file(call, transfer)
    data = await _small(transfer)
    if head["type"] == "symlink":
        return web.Response(body=data, headers=_headers(head), content_type=_OCTETS)
    response = responses.render(Sync(json.loads(data)))
    response.headers.update(_headers(head))
    return response


async def post(call: Call) -> Answer:
    """Create or change a file, a directory or a symbolic link, or unpack a tree."""
    files, path = call.services.files, _path(call)
    where = (call.project, call.params["name"], path)
    new = NewFile(uid=_number(call, "uid"), gid=_number(call, "gid"), mode=_mode(call))
    kind, length = _header(call, "type") or "file", call.request.content_length
    if kind == "directory":
        await call.run(files.make_directory, *where, new)
    elif kind == "symlink":
        target = await call.read()
        if not 0 < len(target) < _MAX_TARGET or b"\0" in target:
            raise BadRequest("A symbolic link needs a target of 1 to 4095 bytes")
        await call.run(files.make_symlink, *where, os.fsdecode(target), new)
    elif kind == "file" and length is not None and length <= SMALL:
        data = b"".join([chunk async for chunk in _body(call.request)])
        await call.run(files.write_small, *where, data, new, append=_append(call))
    elif kind in ("file", "tree"):
        try:
            await _receive(call, kind, new)
        except PylxcError as error:
            return _last(call, responses.error(error.http_status, str(error)))
        files.pushed(*where)
    else:
        raise BadRequest(f"Invalid file type {kind!r}", hint="file, directory, symlink")
    return _last(call, responses.render(Sync()))


async def delete(call: Call) -> Answer:
    """Delete a file or an empty directory."""
    await call.run(call.services.files.delete, call.project, call.params["name"], _path(call))
    return Sync()


async def refuse(_call: Call) -> Answer:
    """Refuse to change a snapshot."""
    raise BadRequest("The files of a snapshot cannot be changed")


def _last(call: Call, response: web.StreamResponse) -> web.StreamResponse:
    """Say that the connection ends with this answer where it does."""
    if not isinstance(call.request.transport, asyncio.Transport) or not call.request.transport.is_reading():
        response.force_close()
    return response


async def _send_file(call: Call, transfer: Transfer) -> web.StreamResponse:
    """Let the process inside the instance send the content down this connection itself, if that is not encrypted."""
    size: int = transfer.head["size"]
    response = web.StreamResponse(headers=_headers(transfer.head))
    response.content_type = _OCTETS
    response.content_length = size
    try:
        connection = plain_socket(call.request)
        if connection is None:
            await _pass_on(call, transfer, response)
        else:
            await response.prepare(call.request)
            call.request.writer.send_headers()
            await response.drain()
            await _flushed(call.request)
            transfer.send_to(connection.fileno())
            await _finish(transfer, call.request)
    except BaseException:
        transfer.abandon()
        raise
    transfer.end()
    return response


async def _send_tree(call: Call, path: str) -> web.StreamResponse:
    where = (call.project, call.params["name"], path, call.params.get("snapshot", ""))
    transfer = await call.run(call.services.files.read_tree, *where)
    response = web.StreamResponse(headers={f"{prefix}type": "tree" for prefix in _PREFIXES})
    response.content_type = "application/x-tar"
    try:
        await _pass_on(call, transfer, response)
    except BaseException:
        transfer.abandon()
        raise
    transfer.end()
    call.services.files.retrieved(*where)
    return response


async def _pass_on(call: Call, transfer: Transfer, response: web.StreamResponse) -> None:
    """Answer with what the process inside the instance sends; raises like `_finish`."""
    source, sink = os.pipe()
    try:
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(source, False)
        transfer.send_to(sink)
        os.close(sink)
        await response.prepare(call.request)
        while data := await descriptors.read(source):
            await response.write(data)
        await _finish(transfer, call.request)
    finally:
        os.close(source)


async def _finish(transfer: Transfer, request: web.BaseRequest) -> None:
    """Wait for the end of an answer whose beginning the client has.

    Raises:
        ConnectionError: it failed; all that can be done is to break off.
    """
    await descriptors.wait_ready(transfer.fileno())
    try:
        transfer.result()
    except PylxcError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(str(error)) from error


async def _flushed(request: web.BaseRequest) -> None:
    """Wait until nothing of what was written to a connection is left in this process."""
    transport = request.transport
    while transport is not None and transport.get_write_buffer_size():
        connection = transport.get_extra_info("socket")
        if connection is None or transport.is_closing():
            raise ConnectionResetError
        await asyncio.sleep(0.001)


async def _small(transfer: Transfer) -> bytes:
    """Return a listing or a link's target."""
    if transfer.head["size"] > _MAX_LISTING:
        transfer.abandon()
        raise Internal("The directory has too many entries to list")
    source, sink = os.pipe()
    os.set_blocking(source, False)
    transfer.send_to(sink)
    os.close(sink)
    parts = []
    try:
        while data := await descriptors.read(source):
            parts.append(data)
    finally:
        os.close(source)
        transfer.abandon()
    return b"".join(parts)


async def _receive(call: Call, kind: str, new: NewFile) -> None:
    """Hand the request's body to a process inside the instance; a body that breaks off changes nothing."""
    append = _append(call)
    source, sink = os.pipe()
    try:
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        files, where = call.services.files, (call.project, call.params["name"], _path(call))
        if kind == "tree":
            transfer = await call.run(files.write_tree, *where, source, new)
        else:
            transfer = await call.run(files.write, *where, source, new, append=append)
    except BaseException:
        os.close(sink)
        raise
    finally:
        os.close(source)
    try:
        os.set_blocking(sink, False)
        try:
            rest = 0 if kind == "tree" else await _begin_big(call.request, sink)
            if rest and (connection := plain_socket(call.request)):
                transfer.read_from(connection.fileno(), rest)
            else:
                await _pass_body(call.request, sink)
        finally:
            os.close(sink)
        for _ in range(2 if rest else 1):
            await descriptors.wait_ready(transfer.fileno())
            transfer.result()
        transfer.commit()
        await descriptors.wait_ready(transfer.fileno())
        transfer.result()
    except BaseException:
        transfer.abandon()
        raise
    transfer.end()


async def _begin_big(request: web.BaseRequest, sink: int) -> int:
    """Write what has come of a big body to `sink`; return how much of it is left to be read from the connection itself.

    Nothing reads the connection here after that. As the HTTP parser never sees the end of the body, the connection ends
    with the answer. 0 leaves everything as it was.
    """
    length, transport = request.content_length, request.transport
    if length is None or length < _BIG or request.content.is_eof() or not isinstance(transport, asyncio.Transport):
        return 0
    if plain_socket(request) is None:
        return 0
    begun = b""
    # Every look may make the parser give more of what it has read already.
    while piece := request.content.read_nowait():
        begun += piece
    request.content.feed_eof()
    request.protocol.close()
    transport.pause_reading()  # last: every step above may make aiohttp resume
    await descriptors.write(sink, begun)
    return length - len(begun)


async def _pass_body(request: web.BaseRequest, sink: int) -> None:
    """Write the body to a pipe until the process at its other end wants no more; raises like `_body`."""
    async for chunk in _body(request):
        if not await descriptors.write(sink, chunk):
            return


async def _body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the body as it comes.

    Raises:
        ConnectionError: the client has gone before its end.
    """
    count = 0
    try:
        async for chunk in request.content.iter_any():
            count += len(chunk)
            yield chunk
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise ConnectionResetError("the client went away") from error
    if request.content_length is not None and count < request.content_length:
        raise ConnectionResetError("the client went away")


_OCTETS = "application/octet-stream"
_FIRST_SECOND = int(dt.datetime.min.replace(tzinfo=dt.UTC).timestamp())
_LAST_SECOND = int(dt.datetime.max.replace(tzinfo=dt.UTC, microsecond=0).timestamp())


def _path(call: Call) -> str:
    path = call.request.query.get("path", "")
    if not path:
        raise BadRequest("Missing path argument")
    return path


def _headers(head: dict[str, Any]) -> dict[str, str]:
    # A guest can date a file as it likes, Python only to the years 1 to 9999.
    seconds = min(max(head["modified"] // 10**9, _FIRST_SECOND), _LAST_SECOND)
    modified = dt.datetime.fromtimestamp(seconds, dt.UTC)
    values = {
        "uid": str(head["uid"]),
        "gid": str(head["gid"]),
        "mode": f"{head['mode']:04o}",
        "type": head["type"],
        "modified": modified.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
    }
    return {f"{prefix}{key}": value for prefix in _PREFIXES for key, value in values.items()}


def _header(call: Call, key: str) -> str:
    return next((call.request.headers[p + key] for p in _PREFIXES if p + key in call.request.headers), "")


def _number(call: Call, key: str) -> int | None:
    text = _header(call, key)
    if not text:
        return None
    if not text.isdecimal() or len(text) > 10 or int(text) > 2**32 - 2:
        raise BadRequest(f"Invalid {key} {text[:40]!r}")
    return int(text)


def _mode(call: Call) -> int | None:
    """Return the permission bits; as LXD reads them: octal with a leading zero, else decimal."""
    text = _header(call, "mode")
    if not text:
        return None
    try:
        mode = int(text, 8) if text.startswith("0") and text.isdecimal() else int(text, 0)
    except ValueError:
        raise BadRequest(f"Invalid mode {text!r}", hint="octal with a leading zero: 0644") from None
    if mode < 0:
        raise BadRequest(f"Invalid mode {text!r}", hint="octal with a leading zero: 0644")
    return mode & 0o7777


def _append(call: Call) -> bool:
    text = _header(call, "write") or "overwrite"
    if text not in ("overwrite", "append"):
        raise BadRequest(f"Invalid file write mode {text!r}", hint="overwrite or append")
    return text == "append"


ENDPOINTS = (
    Endpoint(path="/1.0/instances/{name}/files", get=get, head=get, post=post, delete=delete),
    Endpoint(path="/1.0/instances/{name}/snapshots/{snapshot}/files", get=get, head=get, post=refuse, delete=refuse),
)
