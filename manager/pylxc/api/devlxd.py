"""The guest API: HTTP on the sockets that running instances see as /dev/lxd/sock.

A guest is not trusted. It has a few connections at a time, each for a few seconds unless it listens to events, and a
bounded number of requests; what it sends is never read beyond a request's header. See: LXD doc dev-lxd
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from aiohttp import web

from pylxc.api import images
from pylxc.api.call import Call, Endpoint
from pylxc.api.doors import Door, DoorProtocol
from pylxc.api.events import send_over_websocket, waker
from pylxc.api.http import peer
from pylxc.api.router import Router
from pylxc.errors import PylxcError
from pylxc.services.certificates.caller import STRANGER
from pylxc.services.events import Subscription, Waker
from pylxc.services.guests.events import TYPES
from pylxc.services.guests.sockets import Guest
from pylxc.services.services import Services

log = logging.getLogger(__name__)

R = TypeVar("R")

_THREADS = 4
"""Of all guests together: they cannot take those of the host's clients."""


class GuestCall(Call):
    """A guest's request.

    Args:
        guest: whose socket it came through.
        uid: who sent it, as the host calls that user.
    """

    def __init__(
        self,
        services: Services,
        request: web.BaseRequest,
        params: dict[str, str],
        executor: Executor,
        stopping: asyncio.Event,
        guest: Guest,
        uid: int,
    ) -> None:
        super().__init__(services, request, params, executor, stopping, caller=STRANGER)
        self.guest = guest
        self._uid = uid

    async def ask(self, function: Callable[..., R], *args: str) -> R:
        """Run a method of `services.guests` for this guest and user; for nobody when they go away meanwhile."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, function, self.guest, self._uid, *args)


async def versions(call: GuestCall) -> web.StreamResponse:
    """Answer the API's versions."""
    await call.ask(call.services.guests.about)
    return _json(["/1.0"])


async def about(call: GuestCall) -> web.StreamResponse:
    """Answer what the instance and its host are."""
    return _json(await call.ask(call.services.guests.about))


async def config(call: GuestCall) -> web.StreamResponse:
    """Answer the URLs of the keys."""
    return _json(await call.ask(call.services.guests.keys))


async def value(call: GuestCall) -> web.StreamResponse:
    """Answer a key's value."""
    return _raw(await call.ask(call.services.guests.value, call.params["key"]))


async def metadata(call: GuestCall) -> web.StreamResponse:
    """Answer cloud-init's meta-data."""
    return _raw(await call.ask(call.services.guests.metadata))


async def devices(call: GuestCall) -> web.StreamResponse:
    """Answer the instance's devices."""
    return _json(await call.ask(call.services.guests.devices))


async def export_image(call: GuestCall) -> web.StreamResponse:
    """Send an image's files."""
    files = await call.ask(call.services.guests.image, call.params["fingerprint"])
    return await images.send_files(call, files)


async def events(call: GuestCall) -> web.StreamResponse:
    """Send the instance's events, over a websocket or as lines of JSON."""
    await call.ask(call.services.guests.listen)
    bus, wanted = call.services.guests.events, call.query.get("type") or ",".join(TYPES)

    def subscribe(wake: Waker) -> Subscription:
        return bus.subscribe(call.guest.key, frozenset(wanted.split(",")), wake)

    if call.request.headers.get("Upgrade", "").lower() == "websocket":
        return await send_over_websocket(call.request, subscribe, bus.unsubscribe, call.stopping)
    changed = asyncio.Event()
    listener = subscribe(waker(call.request, changed))
    response = web.StreamResponse(headers={"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"})
    try:
        await response.prepare(call.request)
        call.request.writer.send_headers()
        while True:  # until the guest goes, or the server ends
            await changed.wait()
            changed.clear()
            for text in listener.take():
                await response.write(f"{text}\n".encode())
    finally:
        bus.unsubscribe(listener)


Handler = Callable[[GuestCall], Awaitable[web.StreamResponse]]

_HANDLERS: dict[str, Handler] = {
    "/": versions,
    "/1.0": about,
    "/1.0/config": config,
    "/1.0/config/{key}": value,
    "/1.0/devices": devices,
    "/1.0/events": events,
    "/1.0/images/{fingerprint}/export": export_image,
    "/1.0/meta-data": metadata,
}


class GuestServer:
    """Answers guests; made and closed on the event loop, `add` and `remove` may be called from any thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._router = Router(Endpoint(path=path) for path in _HANDLERS)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="guests")
        # A guest that goes away must not leave a listener behind.
        self._http = web.Server(self._handle, handler_cancellation=True)
        self._stopping = asyncio.Event()
        self._doors: dict[str, Door] = {}

    def add(self, guest: Guest, listener: socket.socket) -> None:
        """Serve a listening socket of a guest."""
        self._call(self._add, guest, listener)

    def remove(self, key: str) -> None:
        """End the service of a guest, and its connections."""
        self._call(self._remove, key)

    def close(self) -> None:
        """End the service of all guests."""
        self._stopping.set()
        for key in list(self._doors):
            self._remove(key)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has gone: the daemon ends, and its sockets with it
            log.debug("No more guests are served")

    def _add(self, guest: Guest, listener: socket.socket) -> None:
        if self._stopping.is_set():
            listener.close()
            return
        self._doors[guest.key] = Door(self._http, guest, listener)

    def _remove(self, key: str) -> None:
        door = self._doors.pop(key, None)
        if door is not None:
            door.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, DoorProtocol)
        try:
            await connection.begin()
            response = await self._answer(request, connection)
        except PylxcError as error:
            response = _text(error.http_status, str(error))
        except web.HTTPException as error:
            response = _text(error.status, error.reason)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("Failed answering guest %s", connection.door.guest.key)
            response = _text(500, "internal server error")
        finally:
            connection.rest()
        if request.writer.output_size > 0 and not response.prepared:
            raise ConnectionError("an answer has begun already")
        if request.body_exists:
            response.force_close()  # nobody reads it
        return response

    async def _answer(self, request: web.BaseRequest, connection: DoorProtocol) -> web.StreamResponse:
        who = peer(request)
        if who is None:
            raise ConnectionResetError
        match = self._router.find(request.rel_url.raw_path)
        if request.method != "GET":
            return _text(405, f'method "{request.method}" not allowed')
        call = GuestCall(
            self._services, request, match.params, self._executor, self._stopping, connection.door.guest, who[1]
        )
        return await _HANDLERS[match.endpoint.path](call)


def _json(data: Any) -> web.Response:
    return web.Response(body=json.dumps(data).encode() + b"\n", content_type="application/json")


def _raw(text: str) -> web.Response:
    return web.Response(body=text.encode(), content_type="application/octet-stream")


def _text(status: int, text: str) -> web.Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, text=f"{text}\n", headers=headers)
