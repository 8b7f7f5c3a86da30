"""Device nodes for a container: made for it by the host's root, and mounted, for the container itself may make none."""

from __future__ import annotations

import os
import stat

from pylxc.errors import BadRequest
from pylxc.kernel import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pylxc.runtime.spec import DeviceNode, IdMap, IdRange

_KINDS = {"block": stat.S_IFBLK, "char": stat.S_IFCHR}


def open_node(path: str, node: DeviceNode, idmap: IdMap | None) -> int:
    """Return a detached mount of a new node (the caller's to close) with the owner and mode that the container sees.

    Args:
        path: where to make it: on a file system that nobody else sees, and that may hold nodes.
        node: the device.
        idmap: the container's; None for a privileged one.

    Raises:
        BadRequest: its owner is none of the container's ids.
        OSError: see mknod(2); without rights for that there is only the host's own node, and it is missing.
    """
    uid = node.uid if idmap is None else host_id(idmap.uids, node.uid)
    gid = node.gid if idmap is None else host_id(idmap.gids, node.gid)
    try:
        os.mknod(path, _KINDS[node.kind] | 0o600, os.makedev(node.major, node.minor))
    except PermissionError:  # in a container of its own a manager may make none either
        return _private(node.source or node.path)
    os.chown(path, uid, gid)
    os.chmod(path, node.mode)
    return _private(path)


def host_id(ranges: Iterable[IdRange], number: int) -> int:
    """Return the host's id of a container's; raises BadRequest when it has none."""
    for each in ranges:
        if each.inside <= number < each.inside + each.length:
            return each.outside + number - each.inside
    raise BadRequest(f"Id {number} is none of the ids of the instance")


def _private(path: str) -> int:
    tree = mount.open_tree(path)
    mount.set_attributes(tree, propagation=mount.MS_PRIVATE)
    return tree
