"""/internal: for the command on this host. Reached over the unix socket only."""

from __future__ import annotations

import os

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.http import peer
from pylxc.api.responses import Answer, Sync
from pylxc.errors import Forbidden
from pylxc.wire.storage import RecoverPost

_CHUNK = 1 << 20


async def ready(_call: Call) -> Answer:
    """Answer once the daemon is ready: it listens only then."""
    return Sync()


async def shutdown(call: Call) -> Answer:
    """Stop the containers, answer, and end the daemon. `?force=true` does not wait for operations."""
    await call.run(call.services.server.shutdown, force=call.flag("force"))
    return Sync()


async def database(call: Call) -> Answer:
    """Send a backup of the database."""
    _require_root(call)
    with await call.run(call.services.database.snapshot) as file:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = os.fstat(file.fileno()).st_size
        await response.prepare(call.request)
        while chunk := await call.run(file.read, _CHUNK):
            await response.write(chunk)
        await response.write_eof()
    return response


async def recover_pools(call: Call) -> Answer:
    """Answer the storage pools that can be looked through: those that are known, and those that lie about."""
    _require_root(call)
    return Sync(await call.run(call.services.recovery.pools))


async def recover_validate(call: Call) -> Answer:
    """Answer what storage pools hold that is not known."""
    _require_root(call)
    return Sync(await call.run(call.services.recovery.validate, await call.body(RecoverPost)))


async def recover_import(call: Call) -> Answer:
    """Make known what storage pools hold."""
    _require_root(call)
    return Sync(await call.run(call.services.recovery.run, await call.body(RecoverPost)))


def _require_root(call: Call) -> None:
    who = peer(call.request)
    if who is None or who[1] != 0:
        raise Forbidden("Only root may do this, on the server's unix socket")


ENDPOINTS = (
    Endpoint(path="/internal/ready", get=ready),
    Endpoint(path="/internal/shutdown", put=shutdown),
    Endpoint(path="/internal/database", get=database),
    Endpoint(path="/internal/recover/pools", get=recover_pools),
    Endpoint(path="/internal/recover/validate", post=recover_validate),
    Endpoint(path="/internal/recover/import", post=recover_import),
)
