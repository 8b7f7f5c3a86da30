"""/, /1.0, and what belongs to the server as a whole."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync
from pylxc.config.registry import metadata
from pylxc.wire.server import InitPost, ServerPut

_UNTRUSTED = frozenset({"GET", "HEAD"})


async def versions(_call: Call) -> Answer:
    """Answer the API's versions."""
    return Sync(["/1.0"])


async def get(call: Call) -> Answer:
    """Answer the server's configuration and environment."""
    server, tag = await call.run(call.services.server.get, call.project, call.caller)
    return Sync(server, tag)


async def put(call: Call) -> Answer:
    """Replace the server's configuration."""
    body = await call.body(ServerPut)
    await call.run(call.services.server.replace, body.get("config", {}), call.if_match)
    return Sync()


async def patch(call: Call) -> Answer:
    """Change keys of the server's configuration."""
    body = await call.body(ServerPut)
    await call.run(call.services.server.merge, body.get("config", {}), call.if_match)
    return Sync()


async def initialise(call: Call) -> Answer:
    """Set storage, networks, profiles and projects up: pylxc_init."""
    body = await call.body(InitPost)
    return Sync(await call.run(call.services.initialise.run, body))


async def configuration(_call: Call) -> Answer:
    """Answer the registry of configuration keys."""
    return Sync(metadata())


async def cluster(_call: Call) -> Answer:
    """Answer that this server stands alone."""
    return Sync({"server_name": "", "enabled": False, "member_config": []})


ENDPOINTS = (
    Endpoint(path="/", get=versions, untrusted=_UNTRUSTED),
    Endpoint(path="/1.0", get=get, put=put, patch=patch, untrusted=_UNTRUSTED),
    Endpoint(path="/1.0/pylxc/init", post=initialise),
    Endpoint(path="/1.0/metadata/configuration", get=configuration),
    Endpoint(path="/1.0/cluster", get=cluster),
)
