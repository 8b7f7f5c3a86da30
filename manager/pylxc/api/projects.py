"""/1.0/projects."""

from __future__ import annotations

from urllib.parse import quote

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Created, Sync
from pylxc.wire.projects import ProjectPost, ProjectPut, ProjectsPost


async def list_projects(call: Call) -> Answer:
    """Answer the projects: URLs, or objects with recursion."""
    found = [each for each in await call.run(call.services.projects.list) if call.caller.may_enter(each["name"])]
    return Sync(found if call.recursion else [_url(project["name"]) for project in found])


async def create(call: Call) -> Answer:
    """Make a project."""
    body = await call.body(ProjectsPost)
    return Created(_url(await call.run(call.services.projects.create, body)))


async def get(call: Call) -> Answer:
    """Answer one project."""
    project, tag = await call.run(call.services.projects.get, call.params["name"])
    return Sync(project, tag)


async def state(call: Call) -> Answer:
    """Answer what a project uses of its limits."""
    return Sync(await call.run(call.services.projects.state, call.params["name"]))


async def put(call: Call) -> Answer:
    """Replace a project's configuration."""
    body = await call.body(ProjectPut)
    await call.run(call.services.projects.replace, call.params["name"], body, call.if_match)
    return Sync()


async def patch(call: Call) -> Answer:
    """Merge changes into a project's configuration."""
    body = await call.body(ProjectPut)
    await call.run(call.services.projects.merge, call.params["name"], body, call.if_match)
    return Sync()


async def post(call: Call) -> Answer:
    """Rename a project."""
    body = await call.body(ProjectPost)
    return Async(await call.run(call.services.projects.rename, call.params["name"], body))


async def delete(call: Call) -> Answer:
    """Delete an empty project."""
    await call.run(call.services.projects.delete, call.params["name"])
    return Sync()


def _url(name: str) -> str:
    return f"/1.0/projects/{quote(name, safe='')}"


ENDPOINTS = (
    Endpoint(path="/1.0/projects", get=list_projects, post=create),
    Endpoint(path="/1.0/projects/{name}", get=get, put=put, patch=patch, post=post, delete=delete),
    Endpoint(path="/1.0/projects/{name}/state", get=state),
)
