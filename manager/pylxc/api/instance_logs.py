"""/1.0/instances/NAME/logs."""

from __future__ import annotations

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Sync


async def list_logs(call: Call) -> Answer:
    """Answer the URLs of an instance's logs."""
    return Sync(await call.run(call.services.logs.list, call.project, call.params["name"]))


async def get(call: Call) -> Answer:
    """Answer a log as it is."""
    path = await call.run(call.services.logs.read, call.project, call.params["name"], call.params["file"])
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'inline;filename="{call.params["file"]}"',
    }
    return web.FileResponse(path, headers=headers) if path else web.Response(headers=headers)


async def delete(call: Call) -> Answer:
    """Delete a log."""
    await call.run(call.services.logs.delete, call.project, call.params["name"], call.params["file"])
    return Sync()


ENDPOINTS = (
    Endpoint(path="/1.0/instances/{name}/logs", get=list_logs),
    Endpoint(path="/1.0/instances/{name}/logs/{file}", get=get, delete=delete),
)
