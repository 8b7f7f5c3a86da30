"""/1.0/resources."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync
from pylxc.services.inventory.inventory import collect


async def get(call: Call) -> Answer:
    """Answer what this host is made of."""
    return Sync(await call.run(collect))


ENDPOINTS = (Endpoint(path="/1.0/resources", get=get),)
