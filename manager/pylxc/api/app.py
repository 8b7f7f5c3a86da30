"""The API as one function from request to answer: routing, access, aliases, errors."""

from __future__ import annotations

import asyncio
import functools
import logging
import pwd
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pylxc.api import (
    access,
    certificates,
    events,
    images,
    instance_console,
    instance_exec,
    instance_files,
    instance_logs,
    instance_metadata,
    instance_snapshots,
    instance_state,
    instances,
    internal,
    metrics,
    network_forwards,
    networks,
    operations,
    profiles,
    projects,
    resources,
    responses,
    server,
    storage_pools,
    storage_volume_snapshots,
    storage_volumes,
    warnings,
)
from pylxc.api.call import Call, Endpoint, Handler
from pylxc.api.http import HttpServer, peer
from pylxc.api.responses import Async, Created, Sync
from pylxc.api.router import Match, Router
from pylxc.api.tls_gate import TlsProtocol
from pylxc.errors import BadRequest, NotFound, PylxcError, from_os
from pylxc.services.certificates.caller import LOCAL, Caller
from pylxc.services.events import requestor
from pylxc.services.operations import Operation
from pylxc.services.services import Services

log = logging.getLogger(__name__)

MODULES = (
    server,
    certificates,
    events,
    operations,
    resources,
    internal,
    metrics,
    instances,
    instance_state,
    instance_exec,
    instance_console,
    instance_files,
    instance_logs,
    instance_metadata,
    instance_snapshots,
    images,
    profiles,
    projects,
    networks,
    network_forwards,
    storage_pools,
    storage_volumes,
    storage_volume_snapshots,
    warnings,
)
THREADS = 128
"""Requests that wait for a service at the same time, at most, of this host and of the network each: those of one cannot
take the other's. Long work has threads of its own."""

_WITHOUT_PROJECT = ("/1.0/projects", "/1.0/operations/", "/1.0/certificates", "/1.0/cluster")
"""Where the paths of endpoints begin that are about no project."""

_INSTANCE_URL = re.compile(r"^/1\.0/instances(?=[/?]|$)")


def endpoints() -> Iterable[Endpoint]:
    """Yield every endpoint of the API."""
    for module in MODULES:
        yield from module.ENDPOINTS


class App:
    """Answers requests for a set of services.

    Attributes:
        draining: requests that change something are answered with 503, what has begun is brought to its end.
        stopping: when set, every new request is answered with 503 and whoever waits is let go.
    """

    def __init__(self, services: Services) -> None:
        self.draining = False
        self.stopping = asyncio.Event()
        self._services = services
        self._router = Router(endpoints())
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="api")
        self._network = ThreadPoolExecutor(THREADS, thread_name_prefix="api-network")

    def server(self) -> HttpServer:
        """Return the protocol factory for a listener; call it with the event loop running."""
        return HttpServer(self.handle)

    def close(self) -> None:
        """Let the threads go; what they still do is not waited for."""
        for executor in (self._executor, self._network):
            executor.shutdown(wait=False, cancel_futures=True)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens.

        Raises:
            ConnectionError: the client is gone, or an answer broke off after its beginning.
        """
        connection = request.protocol
        try:
            response = await self._answer(request)
        except PylxcError as error:
            response = responses.error(error.http_status, str(error))
        except web.HTTPException as error:
            response = responses.error(error.status, error.reason)
        except HttpProcessingError:
            response = responses.error(400, "Malformed HTTP request")
        except (ConnectionError, asyncio.CancelledError):
            raise
        except OSError as error:
            log.exception("Failed answering %s %s", request.method, _raw_path(request))
            response = responses.error(500, str(from_os(error)))
        except Exception:
            log.exception("Failed answering %s %s", request.method, _raw_path(request))
            response = responses.error(500, "Internal error: see the daemon's log")
        finally:
            if isinstance(connection, TlsProtocol):
                connection.rest()
        if request.writer.output_size > 0 and not response.prepared:
            raise ConnectionError("an answer has begun already")
        if self.stopping.is_set() and not response.prepared:
            response.force_close()
        log.debug("%s %s: %d", request.method, _raw_path(request), response.status)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.stopping.is_set() or (self.draining and request.method not in ("GET", "HEAD")):
            return responses.error(503, "The server is stopping")
        match = self._router.find(_raw_path(request))
        handler = _handler(match.endpoint, request.method)
        if handler is None:
            return responses.error(501, "not implemented")
        caller = await self._identify(request)
        if request.query.get("target", "") not in ("", "none"):  # "none" is where volumes say that they are
            raise BadRequest("This server is not part of a cluster")
        executor = self._executor if caller is LOCAL else self._network
        call = Call(self._services, request, match.params, executor, self.stopping, legacy=match.legacy, caller=caller)
        await access.permit(call, match.endpoint)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        is_about_one = _is_scoped(match.endpoint.path) and not call.all_projects and call.project != "default"
        if is_about_one and caller.trusted:  # strangers need not know which there are
            await call.run(self._services.projects.require, call.project)
        answer = access.filtered(caller, await handler(call))
        if isinstance(answer, Async) and call.patience and answer.operation.class_ == "task":
            return await _answer_at_end(call, answer.operation)
        return responses.render(_translate(answer, match))

    async def _identify(self, request: web.BaseRequest) -> Caller:
        """Note who asks and return how far they are trusted; strangers wait for their turn.

        Raises:
            NotFound: this is not answered where they ask.
        """
        connection = request.protocol
        if not isinstance(connection, TlsProtocol):
            who = peer(request)
            if who is None:
                raise ConnectionResetError
            requestor.set({"username": _user_name(who[1]), "protocol": "unix", "address": f"pid={who[0]}"})
            return LOCAL
        loop = asyncio.get_running_loop()
        identify = self._services.certificates.identify
        caller = await loop.run_in_executor(self._network, identify, connection.certificate)
        await connection.begin(trusted=caller.trusted)
        if connection.gate.only not in ("", _raw_path(request)):
            raise NotFound("not found")
        requestor.set({"username": caller.fingerprint, "protocol": "tls", "address": connection.address})
        return caller


async def _answer_at_end(call: Call, operation: Operation) -> web.StreamResponse:
    """Send the head at once, so that the caller knows what to cancel, and the operation when it has ended."""
    head = responses.preferred(operation, call.patience)
    await head.prepare(call.request)
    await call.ended(operation, call.patience)
    cut_short = call.stopping.is_set() and not operation.is_done
    await head.write(responses.broken(503, "The server is stopping") if cut_short else responses.begun(operation))
    return head


def _is_scoped(path: str) -> bool:
    """Return whether an endpoint is about a project; clients name theirs, which may be gone, to the others as well."""
    return path not in ("/", "/1.0") and not path.startswith(_WITHOUT_PROJECT)


def _raw_path(request: web.BaseRequest) -> str:
    path = request.raw_path if request.raw_path.startswith("/") else request.rel_url.raw_path
    return path.partition("?")[0]


def _handler(endpoint: Endpoint, method: str) -> Handler | None:
    handlers = {
        "GET": endpoint.get,
        "HEAD": endpoint.head or endpoint.get,
        "POST": endpoint.post,
        "PUT": endpoint.put,
        "PATCH": endpoint.patch,
        "DELETE": endpoint.delete,
    }
    return handlers.get(method)


@functools.cache
def _user_name(uid: int) -> str:
    """Return a user's name, asked for at every request; a change of it is for the next daemon."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _translate(answer: responses.Answer, match: Match) -> responses.Answer:
    """Give a caller of the legacy paths its own kind of URLs."""
    if not match.legacy:
        return answer
    if isinstance(answer, Sync) and isinstance(answer.metadata, list):
        return Sync([_legacy_url(item, match.legacy) for item in answer.metadata], answer.etag)
    if isinstance(answer, Created):
        return Created(_legacy_url(answer.location, match.legacy))
    return answer


def _legacy_url(item: Any, legacy: str) -> Any:
    return _INSTANCE_URL.sub(f"/1.0/{legacy}", item) if isinstance(item, str) else item
