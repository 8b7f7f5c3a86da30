"""/1.0/networks."""

from __future__ import annotations

from urllib.parse import quote

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Created, Sync
from pylxc.wire.networks import NetworkPost, NetworkPut, NetworksPost


async def list_networks(call: Call) -> Answer:
    """Answer managed networks and unmanaged interfaces: URLs, or objects with recursion."""
    networks = call.services.networks
    if call.recursion:
        return Sync(await call.run(networks.list, call.project))
    return Sync([f"/1.0/networks/{quote(name)}" for name in await call.run(networks.names, call.project)])


async def create(call: Call) -> Answer:
    """Make a network."""
    body = await call.body(NetworksPost)
    name = body.get("name", "")
    await call.run(
        call.services.networks.create,
        name,
        body.get("type", ""),
        body.get("config", {}),
        body.get("description", ""),
        call.project,
    )
    return Created(f"/1.0/networks/{quote(name)}")


async def get(call: Call) -> Answer:
    """Answer one network."""
    networks = call.services.networks
    network = await call.run(networks.get, call.params["network"], call.project)
    return Sync(network, networks.etag(network))


async def put(call: Call) -> Answer:
    """Replace a network's configuration."""
    return await _update(call, patch=False)


async def patch(call: Call) -> Answer:
    """Change the keys of a network that are given."""
    return await _update(call, patch=True)


async def _update(call: Call, *, patch: bool) -> Answer:
    body = await call.body(NetworkPut)
    await call.run(
        call.services.networks.update,
        call.params["network"],
        body.get("config"),
        body.get("description"),
        project=call.project,
        patch=patch,
        if_match=call.if_match,
    )
    return Sync()


async def rename(call: Call) -> Answer:
    """Give a network another name."""
    body = await call.body(NetworkPost)
    new = body.get("name", "")
    await call.run(call.services.networks.rename, call.params["network"], new, call.project)
    return Created(f"/1.0/networks/{quote(new)}")


async def delete(call: Call) -> Answer:
    """Delete a network that nothing uses."""
    await call.run(call.services.networks.delete, call.params["network"], call.project)
    return Sync()


async def confirm(call: Call) -> Answer:
    """Keep a bridge over the host's own interface that waits for it; an extension of pylxc's."""
    await call.run(call.services.networks.confirm, call.params["network"], call.project)
    return Sync()


async def state(call: Call) -> Answer:
    """Answer how a network's interface is now."""
    return Sync(await call.run(call.services.networks.state, call.params["network"], call.project))


async def leases(call: Call) -> Answer:
    """Answer the addresses that are in use on a managed network."""
    return Sync(await call.run(call.services.networks.leases, call.params["network"], call.project))


ENDPOINTS = (
    Endpoint(path="/1.0/networks", get=list_networks, post=create),
    Endpoint(path="/1.0/networks/{network}", get=get, put=put, patch=patch, post=rename, delete=delete),
    Endpoint(path="/1.0/networks/{network}/confirm", post=confirm),
    Endpoint(path="/1.0/networks/{network}/state", get=state),
    Endpoint(path="/1.0/networks/{network}/leases", get=leases),
)
