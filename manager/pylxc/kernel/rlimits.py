"""Resource limits of processes, by their names in configuration. See: getrlimit(2)."""

from __future__ import annotations

import resource

_LOCKS = 10
"""RLIMIT_LOCKS, which Python does not know. See: asm-generic/resource.h"""


def number(name: str) -> int:
    """Return the kernel's number of a limit; `name` is without `RLIMIT_`, in lower case."""
    return _LOCKS if name == "locks" else int(getattr(resource, f"RLIMIT_{name.upper()}"))
