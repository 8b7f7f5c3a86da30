"""/1.0/operations."""

from __future__ import annotations

import asyncio
import contextlib
import math

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync
from pylxc.errors import BadRequest, Forbidden
from pylxc.services.operations import Operation

PING_SECONDS = 10.0
MAX_MESSAGE = 64 * 2**20


async def list_operations(call: Call) -> Answer:
    """Answer the operations by lower-case status: URLs, or objects with recursion."""
    recursion = call.recursion
    found: dict[str, list[object]] = {}
    for operation in call.services.operations.all(None if call.all_projects else call.project):
        if not call.caller.may_enter(operation.project):
            continue
        data = operation.to_json()
        item = data if recursion else f"/1.0/operations/{operation.id}"
        found.setdefault(data["status"].lower(), []).append(item)
    return Sync(found)


async def get(call: Call) -> Answer:
    """Answer one operation."""
    return Sync(_find(call).tell())


async def cancel(call: Call) -> Answer:
    """Cancel an operation."""
    await call.run(call.services.operations.cancel, call.params["id"])
    return Sync()


async def wait(call: Call) -> Answer:
    """Answer an operation once it has ended, or as it is when `timeout` seconds have passed."""
    operation = _find(call)
    if not call.caller.trusted:
        if not operation.allows(call.secret):
            raise Forbidden("not authorized")
        call.vouch()
    await call.ended(operation, _timeout(call))
    return Sync(operation.tell())


async def websocket(call: Call) -> Answer:
    """Hand a websocket to the operation whose secret the caller has."""
    operation = _find(call)
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise BadRequest("This is for websockets only")
    name = operation.claim(call.secret)
    call.vouch()
    response = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE)
    await response.prepare(call.request)
    pinger = asyncio.create_task(_ping(response))
    try:
        await operation.connect(name, response)
    finally:
        pinger.cancel()
        with contextlib.suppress(ConnectionError):
            await response.close()
    return response


async def _ping(response: web.WebSocketResponse) -> None:
    """Keep the connection alive. A peer that is suspended does not answer, and may: it is not dropped for that."""
    with contextlib.suppress(ConnectionError):
        while not response.closed:
            await asyncio.sleep(PING_SECONDS)
            await response.ping()


def _find(call: Call) -> Operation:
    return call.services.operations.get(call.params["id"])


def _timeout(call: Call) -> float | None:
    text = call.request.query.get("timeout") or "-1"
    try:
        seconds = float(text)
    except ValueError:
        raise BadRequest(f"Invalid timeout {text!r}") from None
    if math.isnan(seconds):
        raise BadRequest(f"Invalid timeout {text!r}")
    return None if seconds < 0 or seconds > 1e8 else seconds


ENDPOINTS = (
    Endpoint(path="/1.0/operations", get=list_operations),
    Endpoint(path="/1.0/operations/{id}", get=get, delete=cancel),
    Endpoint(path="/1.0/operations/{id}/wait", get=wait, untrusted=frozenset({"GET"})),
    Endpoint(path="/1.0/operations/{id}/websocket", get=websocket, untrusted=frozenset({"GET"})),
)
