"""Removing control groups."""

from __future__ import annotations

import os
import stat


def remove(path: str) -> None:
    """Remove a group and all groups below, none of which has a process; one that is not there is no error."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError:
        # Groups of the container's own making lie below; a directory of kernfs is removed with its files.
        _remove_below(path)
        os.rmdir(path)


def _remove_below(path: str) -> None:
    """Remove the groups below one, however deep: a container can nest them until their paths are longer than PATH_MAX.

    So one step at a time, with one descriptor and no recursion.
    """
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    names: list[str] = []
    try:
        while True:
            down = next((name for name in os.listdir(here) if _is_group(name, here)), None)
            if down is not None:
                names.append(down)
            elif not names:
                return
            there = os.open(down or "..", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = there
            if down is None:
                os.rmdir(names.pop(), dir_fd=here)
    finally:
        os.close(here)


def _is_group(name: str, directory: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
