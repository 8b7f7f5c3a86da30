"""How long it takes until a running guest has another limit."""

from __future__ import annotations

from bench.server import Samples, Server

GUEST = "limited"


def change(server: Server, run: int) -> Samples:
    """A limit of memory and a number of CPUs, each other than before."""
    return {
        "limit memory, live": server.time("config", "set", GUEST, f"limits.memory={256 + run % 2}MiB"),
        "limit CPUs, live": server.time("config", "set", GUEST, f"limits.cpu={1 + run % 2}"),
    }


def guest(server: Server) -> None:
    """Start the guest."""
    server.run("launch", "busybox", GUEST)


def no_guest(server: Server) -> None:
    """Delete it."""
    server.run("delete", "--force", GUEST)
