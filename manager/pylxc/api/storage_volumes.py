"""/1.0/storage-pools/POOL/volumes: the volumes of instances, images and users."""

from __future__ import annotations

from pylxc.api.backups import endpoints, is_backup, restore
from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Created, Sync
from pylxc.errors import BadRequest, NotFound
from pylxc.services.storage.listing import KINDS, url
from pylxc.services.storage.places import Place
from pylxc.wire.storage import StorageVolume, StorageVolumePost, StorageVolumePut, StorageVolumesPost


async def list_volumes(call: Call) -> Answer:
    """Answer a pool's volumes: URLs, or objects with recursion."""
    kind = volume_type(call) if "type" in call.params else None
    project = None if call.all_projects else call.project
    volumes = await call.run(
        call.services.storage.listing.list, call.params["pool"], project, kind, call.query.get("filter")
    )
    return Sync(volumes if call.recursion else [_url(call.params["pool"], volume) for volume in volumes])


async def create(call: Call) -> Answer:
    """Make a custom volume, empty or as a copy, or bring one back from a backup."""
    if is_backup(call):
        return await restore(call, call.services.volume_backups, call.params["pool"])
    body = await call.body(StorageVolumesPost)
    if "type" in call.params:
        body["type"] = volume_type(call)
    elif not body.get("type"):
        raise BadRequest("You must provide a storage volume type of the storage volume", hint="custom")
    operation = await call.run(call.services.volumes.create, call.project, call.params["pool"], body)
    return Async(operation) if operation else Sync()


async def get(call: Call) -> Answer:
    """Answer one volume."""
    listing = call.services.storage.listing
    volume = await call.run(listing.get, call.params["pool"], call.project, volume_type(call), call.params["volume"])
    return Sync(volume, listing.etag(volume))


async def put(call: Call) -> Answer:
    """Replace a volume's configuration, or restore a snapshot."""
    return await _update(call, patch=False)


async def patch(call: Call) -> Answer:
    """Change the keys of a volume that are given."""
    return await _update(call, patch=True)


async def _update(call: Call, *, patch: bool) -> Answer:
    names = custom(call)
    body = await call.body(StorageVolumePut)
    await call.run(call.services.volumes.update, *names, body, patch=patch, if_match=call.if_match)
    return Sync()


async def post(call: Call) -> Answer:
    """Rename a volume, or move it to another pool."""
    names = custom(call)
    body = await call.body(StorageVolumePost)
    done = await call.run(call.services.volumes.rename, *names, body)
    return Created(url(done)) if isinstance(done, Place) else Async(done)


async def delete(call: Call) -> Answer:
    """Delete a volume."""
    await call.run(call.services.volumes.delete, *custom(call))
    return Sync()


async def state(call: Call) -> Answer:
    """Answer what a volume takes."""
    used = await call.run(
        call.services.storage.listing.state,
        call.params["pool"],
        call.project,
        volume_type(call),
        call.params["volume"],
    )
    return Sync({"usage": used})


def volume_type(call: Call) -> str:
    """Return the type of volume in the path.

    Raises:
        BadRequest: there is no such type.
        NotFound: the volume is of a type of which there are none.
    """
    kind = call.params["type"]
    if kind not in KINDS:
        raise BadRequest(f"Invalid storage volume type {kind!r}", hint=f"one of {', '.join(KINDS)}")
    if kind == "virtual-machine" and "volume" in call.params:
        raise NotFound("Storage volume not found")
    return kind


def custom(call: Call) -> tuple[str, str, str]:
    """Return project, pool and name of the custom volume in the path.

    Raises:
        BadRequest: it is of another type, which is its instance's or image's business.
    """
    kind = volume_type(call)
    if kind != "custom":
        raise BadRequest(f"Storage volumes of type {kind!r} cannot be changed with the storage API")
    return call.project, call.params["pool"], call.params["volume"]


def _url(pool: str, volume: StorageVolume) -> str:
    name, _, snapshot = volume["name"].partition("/")
    return url(Place(pool, volume["project"], name, snapshot, kind=volume["type"]))


_ALL = "/1.0/storage-pools/{pool}/volumes"
_ONE = f"{_ALL}/{{type}}/{{volume}}"

ENDPOINTS = (
    Endpoint(path=_ALL, get=list_volumes, post=create),
    Endpoint(path=f"{_ALL}/{{type}}", get=list_volumes, post=create),
    Endpoint(path=_ONE, get=get, put=put, patch=patch, post=post, delete=delete),
    Endpoint(path=f"{_ONE}/state", get=state),
    *endpoints(_ONE, lambda call: call.services.volume_backups, custom),
)
