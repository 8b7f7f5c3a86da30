"""/1.0/storage-pools."""

from __future__ import annotations

from urllib.parse import quote

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Created, Sync
from pylxc.errors import BadRequest
from pylxc.wire.storage import StoragePoolPut, StoragePoolsPost


async def list_pools(call: Call) -> Answer:
    """Answer the pools: URLs, or objects with recursion."""
    storage = call.services.storage
    if call.recursion:
        return Sync(await call.run(storage.list))
    return Sync([f"/1.0/storage-pools/{quote(name)}" for name in await call.run(storage.names)])


async def create(call: Call) -> Answer:
    """Make a pool."""
    body = await call.body(StoragePoolsPost)
    name = body.get("name", "")
    if not body.get("driver"):
        raise BadRequest("No driver provided")
    await call.run(
        call.services.storage.create, name, body["driver"], body.get("config", {}), body.get("description", "")
    )
    return Created(f"/1.0/storage-pools/{quote(name)}")


async def get(call: Call) -> Answer:
    """Answer one pool."""
    storage = call.services.storage
    pool = await call.run(storage.get, call.params["pool"])
    return Sync(pool, storage.etag(pool))


async def put(call: Call) -> Answer:
    """Replace a pool's configuration."""
    return await _update(call, patch=False)


async def patch(call: Call) -> Answer:
    """Change the keys of a pool that are given."""
    return await _update(call, patch=True)


async def _update(call: Call, *, patch: bool) -> Answer:
    body = await call.body(StoragePoolPut)
    await call.run(
        call.services.storage.update,
        call.params["pool"],
        body.get("config"),
        body.get("description"),
        patch=patch,
        if_match=call.if_match,
    )
    return Sync()


async def delete(call: Call) -> Answer:
    """Delete a pool that nothing uses."""
    await call.run(call.services.storage.delete, call.params["pool"])
    return Sync()


async def resources(call: Call) -> Answer:
    """Answer a pool's space and inodes."""
    return Sync(await call.run(call.services.storage.resources, call.params["pool"]))


ENDPOINTS = (
    Endpoint(path="/1.0/storage-pools", get=list_pools, post=create),
    Endpoint(path="/1.0/storage-pools/{pool}", get=get, put=put, patch=patch, delete=delete),
    Endpoint(path="/1.0/storage-pools/{pool}/resources", get=resources),
)
