"""/1.0/storage-pools/POOL/volumes: the volumes of instances and images."""

from __future__ import annotations

from urllib.parse import quote

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync
from pylxc.errors import BadRequest, NotFound
from pylxc.services.etag import etag
from pylxc.wire.storage import StorageVolume

_TYPES = ("container", "custom", "image", "virtual-machine")


async def list_volumes(call: Call) -> Answer:
    """Answer a pool's volumes: URLs, or objects with recursion."""
    kind = _type(call) if "type" in call.params else None
    project = None if call.all_projects else call.project
    volumes = await call.run(call.services.storage.volumes.list, call.params["pool"], project, kind)
    if project not in (None, "default") and kind in (None, "image"):
        # The images' volumes are the default project's, and seen from every project that may use them.
        volumes += await call.run(call.services.storage.volumes.list, call.params["pool"], "default", "image")
    return Sync(volumes if call.recursion else [_url(call.params["pool"], volume) for volume in volumes])


async def get(call: Call) -> Answer:
    """Answer one volume."""
    volume = await call.run(
        call.services.storage.volumes.get, call.params["pool"], _project(call), _type(call), call.params["volume"]
    )
    return Sync(volume, etag(volume["name"], volume["type"], volume["config"]))


async def state(call: Call) -> Answer:
    """Answer what a volume takes."""
    used = await call.run(
        call.services.storage.volumes.measure, call.params["pool"], _project(call), _type(call), call.params["volume"]
    )
    return Sync({"usage": {"used": used, "total": 0}})


def _type(call: Call) -> str:
    kind = call.params["type"]
    if kind not in _TYPES:
        raise BadRequest(f"Invalid storage volume type {kind!r}", hint=f"one of {', '.join(_TYPES)}")
    if kind == "virtual-machine" and "volume" in call.params:
        raise NotFound("Storage volume not found")
    return kind


def _project(call: Call) -> str:
    return "default" if call.params["type"] == "image" else call.project


def _url(pool: str, volume: StorageVolume) -> str:
    url = f"/1.0/storage-pools/{quote(pool)}/volumes/{volume['type']}/{quote(volume['name'])}"
    return url if volume["project"] == "default" else f"{url}?project={quote(volume['project'])}"


ENDPOINTS = (
    Endpoint(path="/1.0/storage-pools/{pool}/volumes", get=list_volumes),
    Endpoint(path="/1.0/storage-pools/{pool}/volumes/{type}", get=list_volumes),
    Endpoint(path="/1.0/storage-pools/{pool}/volumes/{type}/{volume}", get=get),
    Endpoint(path="/1.0/storage-pools/{pool}/volumes/{type}/{volume}/state", get=state),
)
