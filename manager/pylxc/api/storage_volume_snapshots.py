"""/1.0/storage-pools/POOL/volumes/custom/VOLUME/snapshots."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Sync
from pylxc.api.storage_volumes import custom
from pylxc.wire.storage import StorageVolumeSnapshotPost, StorageVolumeSnapshotPut, StorageVolumeSnapshotsPost


async def list_snapshots(call: Call) -> Answer:
    """Answer a volume's snapshots: URLs, or objects with recursion."""
    snapshots = call.services.volume_snapshots
    if call.recursion:
        return Sync(await call.run(snapshots.list, *custom(call)))
    return Sync(await call.run(snapshots.urls, *custom(call)))


async def create(call: Call) -> Answer:
    """Take a snapshot."""
    names = custom(call)
    body = await call.body(StorageVolumeSnapshotsPost)
    return Async(await call.run(call.services.volume_snapshots.create, *names, body))


async def get(call: Call) -> Answer:
    """Answer one snapshot."""
    snapshot, tag = await call.run(call.services.volume_snapshots.get, *_names(call))
    return Sync(snapshot, tag)


async def put(call: Call) -> Answer:
    """Replace a snapshot's description and when it expires."""
    return await _update(call, patch=False)


async def patch(call: Call) -> Answer:
    """Change what is given of a snapshot."""
    return await _update(call, patch=True)


async def _update(call: Call, *, patch: bool) -> Answer:
    names = _names(call)
    body = await call.body(StorageVolumeSnapshotPut)
    await call.run(call.services.volume_snapshots.update, *names, body, patch=patch, if_match=call.if_match)
    return Sync()


async def post(call: Call) -> Answer:
    """Rename a snapshot."""
    names = _names(call)
    body = await call.body(StorageVolumeSnapshotPost)
    return Async(await call.run(call.services.volume_snapshots.rename, *names, body))


async def delete(call: Call) -> Answer:
    """Delete a snapshot."""
    return Async(await call.run(call.services.volume_snapshots.delete, *_names(call)))


def _names(call: Call) -> tuple[str, str, str, str]:
    return *custom(call), call.params["snapshot"]


_ALL = "/1.0/storage-pools/{pool}/volumes/{type}/{volume}/snapshots"

ENDPOINTS = (
    Endpoint(path=_ALL, get=list_snapshots, post=create),
    Endpoint(path=f"{_ALL}/{{snapshot}}", get=get, put=put, patch=patch, post=post, delete=delete),
)
