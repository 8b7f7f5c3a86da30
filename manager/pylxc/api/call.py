"""One request, as a handler sees it, and the table rows that map paths to handlers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from aiohttp import web

from pylxc.api.access import permit_body
from pylxc.api.responses import Answer
from pylxc.api.tls_gate import TlsProtocol
from pylxc.errors import BadRequest
from pylxc.services.certificates.caller import LOCAL, Caller
from pylxc.services.operations import Operation
from pylxc.services.services import Services
from pylxc.wire.check import check

MAX_BODY = 16 * 2**20
"""Bytes of a JSON body, at most."""
STRANGERS_BODY = 2**17
STRANGERS_SECONDS = 15.0
"""What a caller who is not trusted may send, and how long that may take."""

_WAIT = re.compile(r"(?:^|[,;])\s*wait=(\d{1,4})\s*(?=[,;]|$)")
"""RFC 7240, section 4.3."""

Permit = Callable[[Caller, Any], None]
"""Raises Forbidden when a body is not for a caller."""

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Call:
    """A request.

    Attributes:
        services: what handlers call.
        request: aiohttp's; for headers, uploads and upgrades.
        caller: who asks.
        params: the path's segments by their names in `Endpoint.path`, unescaped.
        project: `?project=`, "default" when absent or empty.
        recursion: `?recursion=`, 0 when absent.
        if_match: the header's tag without quotes.
        stopping: set when the daemon stops; whoever waits for something else waits for this as well.
        legacy: "containers" or "virtual-machines" when the path begins with that in place of "instances", else "".
    """

    def __init__(
        self,
        services: Services,
        request: web.BaseRequest,
        params: dict[str, str],
        executor: Executor,
        stopping: asyncio.Event,
        *,
        legacy: str = "",
        caller: Caller = LOCAL,
    ) -> None:
        self.services = services
        self.request = request
        self.params = params
        self.legacy = legacy
        self.caller = caller
        self.stopping = stopping
        self._executor = executor

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; the first value of each."""
        found: dict[str, str] = {}
        for key, value in self.request.query.items():
            found.setdefault(key, value)
        return found

    @property
    def project(self) -> str:
        """The project that the request is about."""
        return self.request.query.get("project") or "default"

    @property
    def all_projects(self) -> bool:
        """Whether `?all-projects=` asks for every project.

        Raises:
            BadRequest: a project is given as well.
        """
        wanted = self.flag("all-projects")
        if wanted and self.request.query.get("project"):
            raise BadRequest("Cannot specify a project when requesting all projects")
        return wanted

    @property
    def recursion(self) -> int:
        """How deep a list is to be rendered: 0 is URLs.

        Raises:
            BadRequest: no number.
        """
        text = self.request.query.get("recursion") or "0"
        if not text.isdecimal() or len(text) > 4:
            raise BadRequest(f"Invalid recursion {text!r}")
        return int(text)

    @property
    def if_match(self) -> str | None:
        """What the caller believes the thing to be."""
        tag = self.request.headers.get("If-Match")
        return tag.strip().removeprefix("W/").strip('"') if tag else None

    @property
    def patience(self) -> int:
        """Seconds that the caller would rather wait than be told of an operation that has just begun, 0 for none."""
        found = _WAIT.search(self.request.headers.get("Prefer", ""))
        return int(found[1]) if found else 0

    def flag(self, name: str) -> bool:
        """Return a query parameter as a boolean; absent is false."""
        return self.request.query.get(name, "").lower() in ("1", "true", "yes", "on")

    async def read(self) -> bytes:
        """Return the whole body, at most `MAX_BODY` bytes; see `STRANGERS_BODY` as well.

        Raises:
            BadRequest: it is longer, or takes too long.
        """
        most, seconds = (MAX_BODY, None) if self.caller.trusted else (STRANGERS_BODY, STRANGERS_SECONDS)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(seconds):
                async for chunk in self.request.content.iter_any():
                    size += len(chunk)
                    if size > most:
                        raise BadRequest("The request's body is too large")
                    chunks.append(chunk)
        except TimeoutError:
            raise BadRequest("The request's body takes too long") from None
        return b"".join(chunks)

    @property
    def secret(self) -> str:
        """What a caller who is not trusted shows in place of that."""
        return self.request.query.get("secret", "")

    def vouch(self) -> None:
        """Count this connection among the strangers' no more: its secret is good."""
        if isinstance(self.request.protocol, TlsProtocol):
            self.request.protocol.vouch()

    async def json(self, permit: Permit = permit_body) -> Any:
        """Return the decoded JSON body, which `permit` has let pass; the Content-Type does not matter.

        Raises:
            BadRequest: it is no JSON.
        """
        body = await self.read()
        try:
            found = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"Invalid JSON in the request's body: {error}") from error
        permit(self.caller, found)
        return found

    async def body(self, wanted: type[T], permit: Permit = permit_body) -> T:
        """Return the JSON body, checked against a TypedDict of `pylxc.wire`; see `wire.check`, and `json`.

        Raises:
            BadRequest: no JSON, or a value of the wrong type.
        """
        return check(await self.json(permit), wanted)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking service function in the thread pool, as this request's requestor.

        A client that goes away does not end the function: what has begun is brought to its end.
        """
        return await _run_in(self._executor, function, *args, **kwargs)

    async def aside(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run like `run`, in a thread of its own, what takes as long as the client likes."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="api-aside")
        try:
            return await _run_in(thread, function, *args, **kwargs)
        finally:
            thread.shutdown(wait=False)

    async def ended(self, operation: Operation, seconds: float | None) -> None:
        """Wait until an operation has ended, `seconds` have passed (None: for ever) or the daemon stops."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: the daemon ends
                loop.call_soon_threadsafe(done.set)

        operation.on_done(wake)
        waits = [asyncio.create_task(done.wait()), asyncio.create_task(self.stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            operation.forget_on_done(wake)
            for task in waits:
                task.cancel()


async def _run_in(executor: Executor, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await asyncio.shield(loop.run_in_executor(executor, lambda: context.run(function, *args, **kwargs)))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A path and its methods.

    `{name}` in `path` matches one raw segment, `{name:*}` all that is left (image aliases hold slashes). `untrusted`
    are the methods that a TLS caller of unknown certificate may use.
    """

    path: str
    get: Handler | None = None
    head: Handler | None = None
    post: Handler | None = None
    put: Handler | None = None
    patch: Handler | None = None
    delete: Handler | None = None
    untrusted: frozenset[str] = frozenset()
