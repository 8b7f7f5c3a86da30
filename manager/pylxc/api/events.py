"""/1.0/events: a websocket of everything that happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer
from pylxc.api.tls_gate import TlsProtocol
from pylxc.errors import BadRequest
from pylxc.services.events import TYPES, Subscription, Waker

PING_SECONDS = 10.0
CLOSE_SECONDS = 0.5
"""How long a listener may take to answer that this side closes."""


async def listen(call: Call) -> Answer:
    """Send events until the listener leaves, or does not keep up."""
    wanted = {kind.strip() for kind in call.request.query.get("type", "").split(",") if kind.strip()} or TYPES
    if unknown := sorted(wanted - TYPES):
        raise BadRequest(f"Unknown event type {unknown[0]!r}", hint=f"one of {', '.join(sorted(TYPES))}")
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise BadRequest("This is for websockets only")
    if call.caller.restricted:
        wanted = wanted - {"logging"}  # is of the server as a whole
    bus, project = call.services.events, None if call.all_projects else call.project

    def subscribe(wake: Waker) -> Subscription:
        return bus.subscribe(wanted, project, wake, only_project=call.caller.restricted)

    async def permitted() -> bool:
        connection = call.request.protocol
        if not isinstance(connection, TlsProtocol):
            return True
        now = await call.run(call.services.certificates.identify, connection.certificate)
        return now.trusted and now.projects == call.caller.projects

    return await send_over_websocket(call.request, subscribe, bus.unsubscribe, call.stopping, permitted)


async def _always() -> bool:
    return True


async def send_over_websocket(
    request: web.BaseRequest,
    subscribe: Callable[[Waker], Subscription],
    unsubscribe: Callable[[Subscription], None],
    stopping: asyncio.Event,
    permitted: Callable[[], Awaitable[bool]] = _always,
) -> web.WebSocketResponse:
    """Answer a request with a websocket of events, until the listener leaves, does not keep up, or `stopping` is set.

    Args:
        request: asks for a websocket.
        subscribe: returns the listener that it becomes, given what is to be called when that has changed.
        unsubscribe: ends it.
        stopping: the daemon's end.
        permitted: asked before events are sent: whether the listener may still have them.
    """
    changed = asyncio.Event()
    # Subscribed before the handshake is answered: a client that is connected misses nothing.
    listener = subscribe(waker(request, changed))
    response = web.WebSocketResponse(timeout=CLOSE_SECONDS, compress=False, max_msg_size=64 * 1024)
    tasks: list[asyncio.Task[Any]] = []
    try:
        await response.prepare(request)
        work = (_send(response, listener, changed, permitted), _receive(response), stopping.wait())
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        unsubscribe(listener)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if response.prepared:
            with contextlib.suppress(ConnectionError):
                await response.close()
    return response


def waker(request: web.BaseRequest, changed: asyncio.Event) -> Waker:
    """Return what a publisher calls, in its own thread, to have a listener's connection look at its queue."""
    loop = asyncio.get_running_loop()
    transport = request.transport

    def look(listener: Subscription) -> None:
        changed.set()
        if listener.overrun and transport is not None:
            transport.abort()  # a send may be stuck; only this gets it loose

    def wake(listener: Subscription) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: the daemon ends
            loop.call_soon_threadsafe(look, listener)

    return wake


async def _send(
    response: web.WebSocketResponse,
    listener: Subscription,
    changed: asyncio.Event,
    permitted: Callable[[], Awaitable[bool]],
) -> None:
    while True:
        try:
            await asyncio.wait_for(changed.wait(), PING_SECONDS)
        except TimeoutError:
            await response.ping()
            continue
        changed.clear()
        if not await permitted():
            return
        for text in listener.take():
            await response.send_str(text)


async def _receive(response: web.WebSocketResponse) -> None:
    """Return when the listener leaves; what it says does not matter."""
    async for _message in response:
        pass


ENDPOINTS = (Endpoint(path="/1.0/events", get=listen),)
