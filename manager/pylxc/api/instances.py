"""/1.0/instances and the instances below it."""

from __future__ import annotations

from pylxc.api.access import permit_source
from pylxc.api.backups import endpoints, header, is_backup, restore
from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Sync
from pylxc.wire.instances import InstancePost, InstancePut, InstancesPost, InstancesPut


async def list_instances(call: Call) -> Answer:
    """Answer the instances: URLs, or objects with recursion."""
    project = None if call.all_projects else call.project
    instance_type = "virtual-machine" if call.legacy == "virtual-machines" else call.query.get("instance-type")
    return Sync(
        await call.run(
            call.services.instances.list,
            project,
            recursion=call.recursion,
            filter_text=call.query.get("filter"),
            type_=instance_type,
        )
    )


async def create(call: Call) -> Answer:
    """Make an instance, or bring one back from a backup."""
    if is_backup(call):
        return await restore(call, call.services.backups, header(call, "pool"))
    body = await call.body(InstancesPost, permit_source)
    return Async(await call.run(call.services.instances.create, call.project, body))


async def change_states(call: Call) -> Answer:
    """Change the state of every instance of a project."""
    body = await call.body(InstancesPut)
    return Async(await call.run(call.services.instances.change_states, call.project, body.get("state", {})))


async def get(call: Call) -> Answer:
    """Answer one instance, with its state when recursion is asked for."""
    instance, tag = await call.run(call.services.instances.get, call.project, call.params["name"], call.recursion)
    return Sync(instance, tag)


async def put(call: Call) -> Answer:
    """Replace an instance's configuration."""
    body = await call.body(InstancePut)
    name = call.params["name"]
    return Async(await call.run(call.services.instances.update, call.project, name, body, call.if_match))


async def patch(call: Call) -> Answer:
    """Merge changes into an instance's configuration."""
    body = await call.body(InstancePut)
    await call.run(call.services.instances.patch, call.project, call.params["name"], body, call.if_match)
    return Sync()


async def post(call: Call) -> Answer:
    """Rename an instance."""
    body = await call.body(InstancePost)
    return Async(await call.run(call.services.instances.rename, call.project, call.params["name"], body))


async def delete(call: Call) -> Answer:
    """Delete an instance."""
    return Async(await call.run(call.services.instances.delete, call.project, call.params["name"]))


ENDPOINTS = (
    Endpoint(path="/1.0/instances", get=list_instances, post=create, put=change_states),
    Endpoint(path="/1.0/instances/{name}", get=get, put=put, patch=patch, post=post, delete=delete),
    *endpoints(
        "/1.0/instances/{name}",
        lambda call: call.services.backups,
        lambda call: (call.project, call.params["name"]),
    ),
)
