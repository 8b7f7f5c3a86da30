"""Kernel modules."""

from __future__ import annotations

import os

from pylxc.kernel import command


def load(name: str) -> None:
    """Load a module with what it needs, unless it is there already or built in.

    Raises:
        Internal: there is none of that name for this kernel, or it does not load.
        Unavailable: modprobe is not installed.
    """
    if os.path.isdir(f"/sys/module/{name.replace('-', '_')}"):
        return
    command.run(["modprobe", "-b", "--", name])
