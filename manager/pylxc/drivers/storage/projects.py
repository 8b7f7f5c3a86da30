"""Projects of a dir pool's volumes: the id by which the file system keeps an account of one, borne by its directory.

What is made in a volume is in its project, so an id that is given to the empty directory counts all that it is filled
with. Nothing else needs to remember it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from pylxc.kernel import quota

_FIRST, _COUNT = 1 << 20, (1 << 31) - (1 << 20)


def are_accounted(pool: str) -> bool:
    """Tell whether each volume of a pool can have a project of its own."""
    with _opened(pool) as fd:
        # A pool that is in somebody's project is theirs to account for, and its files cannot leave it.
        return quota.is_accounted(fd) and not quota.project(fd)


def are_enforced(pool: str) -> bool:
    """Tell whether projects in a pool are held to their limits."""
    with _opened(pool) as fd:
        return quota.is_enforced(fd) and not quota.project(fd)


def assign(directory: str) -> None:
    """Put a directory that is to be a volume, and what will be made in it, into a project that nothing else is in."""
    with _opened(directory) as fd:
        quota.set_project(fd, _unused(fd))


def assign_tree(directory: str) -> None:
    """Put a volume that is there, with all that is in it, into a project of its own unless it has one."""
    with _opened(directory) as fd:
        if quota.project(fd):
            return
        number = _unused(fd)
    quota.set_tree(directory, number)


def _unused(fd: int) -> int:
    # By chance, as others may have projects on the file system as well, and the file system knows who has any.
    while True:
        number = _FIRST + secrets.randbelow(_COUNT)
        if quota.account(fd, number) == quota.Account(0, 0):
            return number


def account(directory: str) -> quota.Account | None:
    """Return a volume's account, None when it has no project."""
    with _opened(directory) as fd:
        number = quota.project(fd)
        return quota.account(fd, number) if number and quota.is_accounted(fd) else None


def set_limit(directory: str, size: int) -> None:
    """Limit a volume to `size` bytes, 0 for no limit, which a volume without a project has."""
    with _opened(directory) as fd:
        if number := quota.project(fd):
            quota.set_limit(fd, number, size)


@contextmanager
def joined(former: str, directory: str) -> Iterator[None]:
    """Have a directory be in a volume's project: files of the one can be linked into the other; no limit meanwhile.

    When the block fails it leaves the project: its removal must not be taken for the volume's.
    """
    found = account(former)
    if found is None:
        yield
        return
    with _opened(former) as fd, _opened(directory) as joining:
        number = quota.project(fd)
        quota.set_project(joining, number)
        quota.set_limit(fd, number, 0)
        try:
            yield
        except BaseException:
            quota.set_project(joining, 0)
            raise
        finally:
            quota.set_limit(fd, number, found.limit)


def are_same(one: str, other: str) -> bool:
    """Tell whether two directories are in one project."""
    with _opened(one) as first, _opened(other) as second:
        return quota.project(first) == quota.project(second) != 0


def leave(directory: str) -> None:
    """Take a directory, not what is in it, out of its project: the project belongs to another one now."""
    with _opened(directory) as fd:
        quota.set_project(fd, 0)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
