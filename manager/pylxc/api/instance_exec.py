"""/1.0/instances/NAME/exec."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.http import plain_socket
from pylxc.api.relay import ExecRelay
from pylxc.api.responses import Answer, Async
from pylxc.errors import BadRequest
from pylxc.wire.instances import InstanceExecPost

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.web_request import BaseRequest

UPGRADE = "pylxc-exec"


async def post(call: Call) -> Answer:
    """Run a command: with websockets, with recorded output, or over this very connection."""
    body = await call.body(InstanceExecPost)
    project, name = call.project, call.params["name"]
    if call.request.headers.get("Upgrade", "").lower() == UPGRADE:
        return await _direct(call, body)
    if not body.get("wait-for-websocket"):
        return Async(await call.run(call.services.exec.start_recorded, project, name, body))
    relay = ExecRelay(body.get("interactive", False))
    return Async(await call.run(call.services.exec.start_relayed, project, name, body, relay))


async def _direct(call: Call, body: InstanceExecPost) -> Answer:
    transport = call.request.transport
    connection = plain_socket(call.request)
    if connection is None or not isinstance(transport, asyncio.Transport):
        raise BadRequest("An exec of this kind needs the unix socket")
    # From here on nobody reads the socket in this process: what the client says next carries descriptors.
    transport.pause_reading()
    peer_fd = os.dup(connection.fileno())

    def greet(operation_id: str) -> None:
        head = (
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {UPGRADE}\r\nConnection: Upgrade\r\n"
            f"Location: /1.0/operations/{operation_id}\r\n\r\n"
        )
        os.write(peer_fd, head.encode())

    try:
        await call.run(call.services.exec.start_direct, call.project, call.params["name"], body, peer_fd, greet)
    except BaseException:
        os.close(peer_fd)
        transport.resume_reading()
        raise
    return _HandedOver()


class _HandedOver(web.StreamResponse):
    """The connection belongs to somebody else now: say nothing, just let go of it."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


ENDPOINTS = (Endpoint(path="/1.0/instances/{name}/exec", post=post),)
