"""/1.0/warnings."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync
from pylxc.wire.warnings import WarningPut


async def list_warnings(call: Call) -> Answer:
    """Answer the warnings, of one project when it is named: URLs, or objects with recursion."""
    found = await call.run(call.services.warnings.list, call.query.get("project") or None)
    return Sync(found if call.recursion else [f"/1.0/warnings/{each['uuid']}" for each in found])


async def get(call: Call) -> Answer:
    """Answer one warning."""
    return Sync(*await call.run(call.services.warnings.get, call.params["uuid"]))


async def put(call: Call) -> Answer:
    """Acknowledge a warning, or make it new again."""
    body = await call.body(WarningPut)
    await call.run(call.services.warnings.set_status, call.params["uuid"], body.get("status"), call.if_match)
    return Sync()


async def delete(call: Call) -> Answer:
    """Delete a warning."""
    await call.run(call.services.warnings.delete, call.params["uuid"])
    return Sync()


ENDPOINTS = (
    Endpoint(path="/1.0/warnings", get=list_warnings),
    Endpoint(path="/1.0/warnings/{uuid}", get=get, put=put, patch=put, delete=delete),
)
