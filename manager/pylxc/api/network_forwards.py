"""/1.0/networks/NAME/forwards."""

from __future__ import annotations

from urllib.parse import quote

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Created, Sync
from pylxc.wire.networks import NetworkForwardPut, NetworkForwardsPost


async def list_forwards(call: Call) -> Answer:
    """Answer a network's forwards: URLs, or objects with recursion."""
    network = call.params["network"]
    found = await call.run(call.services.networks.forwards.list, network, call.project)
    return Sync(found if call.recursion else [_url(network, forward["listen_address"]) for forward in found])


async def create(call: Call) -> Answer:
    """Make a forward."""
    body = await call.body(NetworkForwardsPost)
    network = call.params["network"]
    address = await call.run(
        call.services.networks.forwards.create, network, body.get("listen_address", ""), body, call.project
    )
    return Created(_url(network, address))


async def get(call: Call) -> Answer:
    """Answer one forward."""
    forwards = call.services.networks.forwards
    forward = await call.run(forwards.get, call.params["network"], call.params["address"], call.project)
    return Sync(forward, forwards.etag(forward))


async def put(call: Call) -> Answer:
    """Replace a forward."""
    return await _update(call, patch=False)


async def patch(call: Call) -> Answer:
    """Change what is given of a forward."""
    return await _update(call, patch=True)


async def _update(call: Call, *, patch: bool) -> Answer:
    body = await call.body(NetworkForwardPut)
    await call.run(
        call.services.networks.forwards.update,
        call.params["network"],
        call.params["address"],
        body,
        project=call.project,
        patch=patch,
        if_match=call.if_match,
    )
    return Sync()


async def delete(call: Call) -> Answer:
    """Delete a forward."""
    await call.run(call.services.networks.forwards.delete, call.params["network"], call.params["address"], call.project)
    return Sync()


def _url(network: str, address: str) -> str:
    return f"/1.0/networks/{quote(network)}/forwards/{quote(address, safe='')}"


ENDPOINTS = (
    Endpoint(path="/1.0/networks/{network}/forwards", get=list_forwards, post=create),
    Endpoint(path="/1.0/networks/{network}/forwards/{address}", get=get, put=put, patch=patch, delete=delete),
)
