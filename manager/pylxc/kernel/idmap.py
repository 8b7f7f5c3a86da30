"""The uid and gid maps of a user namespace, written from outside."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pylxc.kernel import namespaces

Range = tuple[int, int, int]
"""(first id inside, first id outside, count)"""


def write_maps(pid: int, uids: Iterable[Range], gids: Iterable[Range]) -> None:
    """Set the maps of the user namespace that process `pid` is in; they can be set once.

    Raises:
        OSError: EPERM when set already or not privileged, EINVAL for overlapping ranges. See: user_namespaces(7)
    """
    for name, ranges in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges)
        with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
            file.write(text.encode())


def user_namespace(uids: Iterable[Range], gids: Iterable[Range]) -> int:
    """Return a descriptor of a new user namespace with these maps; the caller, single-threaded root, closes it.

    Raises:
        OSError: as `write_maps`.
    """
    wait_fd, go_fd = os.pipe()
    pid, pidfd = namespaces.clone(namespaces.CLONE_NEWUSER)
    if pid == 0:
        os.close(go_fd)
        os.read(wait_fd, 1)  # it is here only to hold the namespace until somebody has a descriptor of it
        os._exit(0)
    try:
        write_maps(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(go_fd)
        os.close(wait_fd)
        os.close(pidfd)
        os.waitpid(pid, 0)
