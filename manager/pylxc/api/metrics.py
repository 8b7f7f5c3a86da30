"""/1.0/metrics."""

from __future__ import annotations

from aiohttp import web

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer


async def get(call: Call) -> Answer:
    """Answer the metrics of instances, of one project when it is named."""
    text = await call.run(call.services.metrics.render, call.query.get("project") or None)
    return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


ENDPOINTS = (Endpoint(path="/1.0/metrics", get=get),)
