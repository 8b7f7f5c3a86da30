"""/1.0/instances/NAME/state, and /wait (extension pylxc_wait)."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Sync
from pylxc.wire.instances import InstanceStatePut, InstanceWaitPost


async def get(call: Call) -> Answer:
    """Answer what an instance uses now."""
    return Sync(await call.run(call.services.instances.state, call.project, call.params["name"]))


async def put(call: Call) -> Answer:
    """Start, stop, restart, freeze or unfreeze an instance."""
    body = await call.body(InstanceStatePut)
    return Async(await call.run(call.services.instances.change_state, call.project, call.params["name"], body))


async def wait(call: Call) -> Answer:
    """Wait until an instance is ready for what is wanted of it."""
    body = await call.body(InstanceWaitPost)
    return Async(await call.run(call.services.instances.wait.start, call.project, call.params["name"], body))


ENDPOINTS = (
    Endpoint(path="/1.0/instances/{name}/state", get=get, put=put),
    Endpoint(path="/1.0/instances/{name}/wait", post=wait),
)
