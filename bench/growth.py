"""What launching and taking snapshots costs in a pool full of instances, as a multiple of what it costs with few."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench.server import Samples, Server

POOL = "crowd"
FEW, MANY = 5, 500
_TIMES = 15


def crowd(server: Server, _run: int) -> Samples:
    """On a btrfs pool of its own, with busybox, which is not started; of pylxc only."""
    if server.name != "pylxc":
        return {}
    server.run("storage", "create", POOL, "btrfs", "size=5GiB")
    names = [f"crowd{number}" for number in range(MANY)]
    try:
        _all(names[:FEW], lambda name: server.run("init", "busybox", name, "-s", POOL))
        few = _measure(server)
        _all(names[FEW:], lambda name: server.run("init", "busybox", name, "-s", POOL))
        many = _measure(server)
    finally:
        server.run("delete", "--force", *names)
        server.run("storage", "delete", POOL)
    return {f"growth of {what}, {FEW} to {MANY} instances": many[what] / few[what] for what in few}


def _measure(server: Server) -> dict[str, float]:
    found: dict[str, list[float]] = {"launch": [], "snapshot": []}
    for _ in range(_TIMES):
        found["launch"].append(server.time("init", "busybox", "one", "-s", POOL))
        found["snapshot"].append(server.time("snapshot", "one", "s0"))
        server.run("delete", "one")
    return {what: median(seconds) for what, seconds in found.items()}


def _all(names: Iterable[str], make: Callable[[str], object]) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make, names))
