"""/1.0/instances/NAME/snapshots."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Sync
from pylxc.services.instances.snapshots import url
from pylxc.wire.instances import InstanceSnapshotPost, InstanceSnapshotPut, InstanceSnapshotsPost


async def list_snapshots(call: Call) -> Answer:
    """Answer an instance's snapshots: URLs, or objects with recursion."""
    name = call.params["name"]
    found = await call.run(call.services.snapshots.list, call.project, name)
    return Sync(found if call.recursion else [url(call.project, name, snapshot["name"]) for snapshot in found])


async def create(call: Call) -> Answer:
    """Take a snapshot."""
    body = await call.body(InstanceSnapshotsPost)
    return Async(await call.run(call.services.snapshots.create, call.project, call.params["name"], body))


async def get(call: Call) -> Answer:
    """Answer one snapshot."""
    snapshot, tag = await call.run(call.services.snapshots.get, call.project, *_names(call))
    return Sync(snapshot, tag)


async def update(call: Call) -> Answer:
    """Change when a snapshot expires."""
    body = await call.body(InstanceSnapshotPut)
    return Async(await call.run(call.services.snapshots.update, call.project, *_names(call), body, call.if_match))


async def post(call: Call) -> Answer:
    """Rename a snapshot."""
    body = await call.body(InstanceSnapshotPost)
    return Async(await call.run(call.services.snapshots.rename, call.project, *_names(call), body))


async def delete(call: Call) -> Answer:
    """Delete a snapshot."""
    return Async(await call.run(call.services.snapshots.delete, call.project, *_names(call)))


def _names(call: Call) -> tuple[str, str]:
    return call.params["name"], call.params["snapshot"]


_ALL = "/1.0/instances/{name}/snapshots"

ENDPOINTS = (
    Endpoint(path=_ALL, get=list_snapshots, post=create),
    Endpoint(path=f"{_ALL}/{{snapshot}}", get=get, put=update, patch=update, post=post, delete=delete),
)
