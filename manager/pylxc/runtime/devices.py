"""Rules of control groups on devices, as `kernel.cgroup` takes them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pylxc.runtime.spec import DeviceNode

_EVERYBODYS = (
    # Making nodes harms nobody (they cannot be opened) and archives need it.
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 10:229 rwm",
    "c 10:200 rwm",
    "c 136:* rwm",
)
"""/dev/{null,zero,full,random,urandom,tty,console,ptmx,fuse,net/tun} and pseudo-terminals."""


def rules(nodes: Iterable[DeviceNode]) -> list[str]:
    """Return what a container may do that has `nodes` beside what everybody has."""
    own = [f"{node.kind[0]} {node.major}:{node.minor} rwm" for node in nodes]
    return [*_EVERYBODYS, *(rule for rule in dict.fromkeys(own) if rule not in _EVERYBODYS)]
