"""The size of instances' root disks: checked before anything is made, brought in line with what is configured."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pylxc.errors import NotSupported, PylxcError
from pylxc.services.instances.expand import Record, root_disk
from pylxc.services.storage.volumes import Volumes

log = logging.getLogger(__name__)

Devices = Mapping[str, Mapping[str, str]]


def wanted(devices: Devices) -> str:
    """Return the size that expanded devices give the root disk, "" for the pool's default; raises BadRequest."""
    return root_disk(devices)[1].get("size", "")


def check(volumes: Volumes, expanded: Devices, own: Devices) -> None:
    """Check that the pool of an instance that is to be can hold its root disk to the size of its devices.

    Raises:
        BadRequest: there is no root disk.
        NotSupported: it cannot; a size that comes from a profile is called so.
    """
    name, root = root_disk(expanded)
    if not root.get("size"):
        return
    try:
        volumes.require_sizes(root["pool"])
    except NotSupported as error:
        if name not in own:
            hint = f"{error.hint}; without a size: -d {name},size="
            raise NotSupported(f"{error.message}, and a profile says size={root['size']}", hint=hint) from error
        raise


def change(volumes: Volumes, before: Record, after: Record) -> bool:
    """Give an instance's volume the size of a new record where that differs; return whether it does.

    Raises:
        BadRequest: more is in use.
        NotSupported: the pool cannot limit it.
    """
    size = wanted(after.expanded_devices)
    if size == wanted(before.expanded_devices):
        return False
    volumes.resize_instance(after.pool, after.project, after.name, size)
    return True


def settle(volumes: Volumes, found: Record) -> str:
    """Give an instance's volume its configured size, whatever it has now; return why not, "" when it has it."""
    try:
        size = wanted(found.expanded_devices)
        if size or volumes.is_limited(found.pool, found.project, found.name):
            volumes.resize_instance(found.pool, found.project, found.name, size)
    except PylxcError as error:
        log.warning("The root disk of instance %s keeps the size that it has: %s", found.key, error)
        return str(error)
    return ""
