"""/internal: for the command on this host. Reached over the unix socket only."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync


async def ready(_call: Call) -> Answer:
    """Answer once the daemon is ready: it listens only then."""
    return Sync()


async def shutdown(call: Call) -> Answer:
    """Stop the containers, answer, and end the daemon. `?force=true` does not wait for operations."""
    await call.run(call.services.server.shutdown, force=call.flag("force"))
    return Sync()


ENDPOINTS = (
    Endpoint(path="/internal/ready", get=ready),
    Endpoint(path="/internal/shutdown", put=shutdown),
)
