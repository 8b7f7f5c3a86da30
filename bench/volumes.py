"""What storage does on btrfs: a pool of its own on a loop file for each sample."""

from __future__ import annotations

from bench.server import Samples, Server

POOL = "fast"


def life_on_btrfs(server: Server, run: int) -> Samples:
    """A Debian 12 instance on a new pool, so that the image is unpacked first; then what takes no copying."""
    name = f"fast{run}"
    server.run("storage", "create", POOL, "btrfs", "size=8GiB")
    try:
        samples = {"unpack an image, btrfs pool": server.time("init", "debian", name, "-s", POOL)}
        samples["launch, btrfs pool"] = server.time("launch", "debian", f"{name}b", "-s", POOL)
        samples["snapshot, btrfs pool"] = server.time("snapshot", name, "s0")
        samples["copy, btrfs pool"] = server.time("copy", name, f"{name}c")
        samples["restore, btrfs pool"] = server.time("restore", name, "s0")
        samples["delete, btrfs pool"] = server.time("delete", f"{name}c")
        for left in (name, f"{name}b"):
            server.run("delete", "--force", left)
    finally:
        server.run("storage", "delete", POOL)
    return samples
