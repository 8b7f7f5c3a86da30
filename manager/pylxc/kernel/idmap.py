"""The uid and gid maps of a user namespace, written from outside."""

from __future__ import annotations

from collections.abc import Iterable

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
