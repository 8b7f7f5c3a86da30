"""What takes copying, of a Debian 12 instance on a dir pool: backups to a file and back, copies, snapshots."""

from __future__ import annotations

import os

from bench.server import Samples, Server

NAME = "kept"


def prepare(server: Server) -> None:
    """Make the instance."""
    server.run("init", "debian", NAME)


def finish(server: Server) -> None:
    """Delete it."""
    server.run("delete", NAME)


def there_and_back(server: Server, run: int) -> Samples:
    """Each of both packs with what is its default: gzip."""
    file, back, copy = f"{server.dir}/backup", f"back{run}", f"copy{run}"
    samples = {"export, dir pool": server.time("export", NAME, file)}
    samples["import, dir pool"] = server.time("import", file, back)
    samples["copy, dir pool"] = server.time("copy", NAME, copy)
    samples["snapshot, dir pool"] = server.time("snapshot", NAME, "s0")
    samples["publish, dir pool"] = server.time("publish", NAME, "--alias", f"image{run}", f"run={run}")
    server.run("image", "delete", f"image{run}")
    for left in (back, copy, f"{NAME}/s0"):
        server.run("delete", left)
    os.unlink(file)
    return samples
