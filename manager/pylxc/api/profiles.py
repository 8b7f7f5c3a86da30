"""/1.0/profiles."""

from __future__ import annotations

from urllib.parse import quote

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Created, Sync
from pylxc.wire.profiles import ProfilePost, ProfilePut, ProfilesPost


async def list_profiles(call: Call) -> Answer:
    """Answer the profiles: URLs, or objects with recursion."""
    found = await call.run(call.services.profiles.list, call.project)
    return Sync(found if call.recursion else [_url(call, profile["name"]) for profile in found])


async def create(call: Call) -> Answer:
    """Make a profile."""
    body = await call.body(ProfilesPost)
    return Created(_url(call, await call.run(call.services.profiles.create, call.project, body)))


async def get(call: Call) -> Answer:
    """Answer one profile."""
    profile, tag = await call.run(call.services.profiles.get, call.project, call.params["name"])
    return Sync(profile, tag)


async def put(call: Call) -> Answer:
    """Replace a profile."""
    body = await call.body(ProfilePut)
    await call.run(call.services.profiles.replace, call.project, call.params["name"], body, call.if_match)
    return Sync()


async def patch(call: Call) -> Answer:
    """Merge changes into a profile."""
    body = await call.body(ProfilePut)
    await call.run(call.services.profiles.merge, call.project, call.params["name"], body, call.if_match)
    return Sync()


async def post(call: Call) -> Answer:
    """Rename a profile."""
    body = await call.body(ProfilePost)
    return Created(_url(call, await call.run(call.services.profiles.rename, call.project, call.params["name"], body)))


async def delete(call: Call) -> Answer:
    """Delete a profile that no instance has."""
    await call.run(call.services.profiles.delete, call.project, call.params["name"])
    return Sync()


def _url(call: Call, name: str) -> str:
    suffix = "" if call.project == "default" else f"?project={quote(call.project)}"
    return f"/1.0/profiles/{quote(name, safe='')}{suffix}"


ENDPOINTS = (
    Endpoint(path="/1.0/profiles", get=list_profiles, post=create),
    Endpoint(path="/1.0/profiles/{name}", get=get, put=put, patch=patch, post=post, delete=delete),
)
