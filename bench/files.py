"""Files and trees, pushed and pulled by each server's own command."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from bench.server import Samples, Server

GUEST = "filed"
LARGE_BYTES = 512 << 20
FILES = 1000
_FORGOTTEN_SECONDS = 65
"""RECENTCY_MIN of fs/ext4/ialloc.c, and a little."""


def large(server: Server, _run: int) -> Samples:
    """A large file there and back."""
    here, back = f"{server.dir}/large", f"{server.dir}/large.back"
    samples = {"512 MiB file pushed": server.time("file", "push", here, f"{GUEST}/root/large")}
    os.sync()
    samples["512 MiB file pulled"] = server.time("file", "pull", f"{GUEST}/root/large", back)
    if os.path.getsize(back) != LARGE_BYTES:
        raise RuntimeError(f"{server.name}: {os.path.getsize(back)} bytes came back")
    os.unlink(back)
    server.run("exec", GUEST, "--", "rm", "/root/large")
    return samples


def tree(server: Server, run: int) -> Samples:
    """A tree of many small files there and back; nothing is deleted in between, see `prepare_tree`."""
    here, there, back = f"{server.dir}/files", f"/root/{run}", f"{server.dir}/back/{run}"
    os.makedirs(back)
    server.run("exec", GUEST, "--", "mkdir", there)
    samples = {"tree of 1,000 files pushed": server.time("file", "push", "--recursive", here, f"{GUEST}{there}/")}
    samples["tree of 1,000 files pulled"] = server.time("file", "pull", "--recursive", f"{GUEST}{there}/files", back)
    count = sum(len(names) for _, _, names in os.walk(back))
    if count != FILES:
        raise RuntimeError(f"{server.name}: {count} files came back")
    return samples


def prepare(server: Server) -> None:
    """Start the guest and write what is pushed."""
    server.run("launch", "busybox", GUEST)
    with open(f"{server.dir}/large", "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(LARGE_BYTES >> 20))
    for number in range(FILES):
        path = Path(server.dir, f"files/{number % 20}/{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 50)


def prepare_tree(server: Server) -> None:
    """Do that when the file system has forgotten what was deleted before.

    For a minute ext4 gives no inode out again, and looks at each of them whenever a file is made: after some thousand
    deletions that takes ten times what making the file takes.
    """
    prepare(server)
    os.sync()
    time.sleep(_FORGOTTEN_SECONDS)


def finish(server: Server) -> None:
    """Delete both."""
    server.run("delete", "--force", GUEST)
    os.unlink(f"{server.dir}/large")
    shutil.rmtree(f"{server.dir}/files")
    shutil.rmtree(f"{server.dir}/back", ignore_errors=True)
