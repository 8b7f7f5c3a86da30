"""/1.0/instances/NAME/metadata: metadata.yaml, and the templates beside it."""

from __future__ import annotations

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync
from pylxc.errors import BadRequest
from pylxc.wire.instances import InstanceMetadata


async def get(call: Call) -> Answer:
    """Answer the metadata."""
    found, tag = await call.run(call.services.metadata.get, call.project, call.params["name"])
    return Sync(found, tag)


async def put(call: Call) -> Answer:
    """Replace the metadata."""
    body = await call.body(InstanceMetadata)
    await call.run(call.services.metadata.replace, call.project, call.params["name"], body, call.if_match)
    return Sync()


async def patch(call: Call) -> Answer:
    """Merge changes into the metadata."""
    body = await call.body(InstanceMetadata)
    await call.run(call.services.metadata.merge, call.project, call.params["name"], body, call.if_match)
    return Sync()


async def get_templates(call: Call) -> Answer:
    """Answer the templates' names, or the source of the one that `?path=` names."""
    metadata, where = call.services.metadata, (call.project, call.params["name"])
    path = call.query.get("path", "")
    if not path:
        return Sync(await call.run(metadata.templates, *where))
    content = await call.run(metadata.template, *where, path)
    return web.Response(body=content, content_type="application/octet-stream")


async def post_template(call: Call) -> Answer:
    """Make or replace a template; the body is its source."""
    path = _path(call)
    content = await call.read()
    await call.run(call.services.metadata.write_template, call.project, call.params["name"], path, content)
    return Sync()


async def delete_template(call: Call) -> Answer:
    """Delete a template."""
    path = _path(call)
    await call.run(call.services.metadata.delete_template, call.project, call.params["name"], path)
    return Sync()


def _path(call: Call) -> str:
    path = call.query.get("path", "")
    if not path:
        raise BadRequest("Missing path argument")
    return path


ENDPOINTS = (
    Endpoint(path="/1.0/instances/{name}/metadata", get=get, put=put, patch=patch),
    Endpoint(
        path="/1.0/instances/{name}/metadata/templates", get=get_templates, post=post_template, delete=delete_template
    ),
)
