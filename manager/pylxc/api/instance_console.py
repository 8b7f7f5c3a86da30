"""/1.0/instances/NAME/console."""

from __future__ import annotations

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.relay import ConsoleRelay
from pylxc.api.responses import Answer, Async, Sync
from pylxc.wire.instances import InstanceConsolePost


async def post(call: Call) -> Answer:
    """Attach to the console."""
    body = await call.body(InstanceConsolePost)
    relay = ConsoleRelay()
    return Async(await call.run(call.services.console.attach, call.project, call.params["name"], body, relay))


async def get(call: Call) -> Answer:
    """Answer the text of what the console has shown."""
    log = await call.run(call.services.console.log, call.project, call.params["name"])
    return web.Response(body=log, content_type="application/octet-stream")


async def delete(call: Call) -> Answer:
    """Forget what the console has shown."""
    await call.run(call.services.console.clear, call.project, call.params["name"])
    return Sync()


ENDPOINTS = (Endpoint(path="/1.0/instances/{name}/console", get=get, post=post, delete=delete),)
