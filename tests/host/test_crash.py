"""kill -9 of the daemon at random moments of a launch-exec-delete loop: once it is back, nothing is left behind.

PYLXC_CRASH_SEED=N repeats a run's moments; PYLXC_CRASH_KILLS=N takes another number of them.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import POOL_AND_BRIDGE, ApiError, Daemon, unique

KILLS = int(os.environ.get("PYLXC_CRASH_KILLS", "50"))
SETTLE_SECONDS = 15
GONE = (ApiError, OSError, http.client.HTTPException, ValueError)
"""What a request may end with when the daemon dies: refused, cut off in the middle, failed by the next daemon."""


class Loop(threading.Thread):
    """Launches, enters and deletes containers, one after the other, whatever happens to the daemon."""

    def __init__(self, daemon: Daemon, image: str, prefix: str) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._image = image
        self._prefix = prefix
        self._ending = threading.Event()
        self._cycle = threading.Condition()
        self.cycles = 0
        self.alive = threading.Event()
        self.alive.set()

    def run(self) -> None:
        number = 0
        while not self._ending.is_set():
            self.alive.wait()
            number += 1
            try:
                once(self._daemon, self._image, f"{self._prefix}-{number}")
            except GONE:
                time.sleep(0.01)
                continue
            with self._cycle:
                self.cycles += 1
                self._cycle.notify_all()

    def await_cycle(self) -> None:
        """Wait until one more cycle has gone through."""
        with self._cycle:
            seen = self.cycles
            assert self._cycle.wait_for(lambda: self.cycles > seen, 60), "no container went through in 60 s"

    def end(self) -> None:
        """End after the cycle at hand."""
        self._ending.set()
        self.alive.set()
        self.join(60)
        assert not self.is_alive()


def once(daemon: Daemon, image: str, name: str) -> None:
    """Launch, exec, delete."""
    source = {"type": "image", "alias": image}
    daemon.request("POST", "/1.0/instances", {"name": name, "source": source, "start": False})
    daemon.request("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
    body = {"command": ["true"], "wait-for-websocket": False, "interactive": False}
    assert daemon.request("POST", f"/1.0/instances/{name}/exec", body)["return"] == 0
    daemon.request("PUT", f"/1.0/instances/{name}/state", {"action": "stop", "force": True, "timeout": -1})
    daemon.request("DELETE", f"/1.0/instances/{name}")


def traces(daemon: Daemon, prefix: str) -> dict[str, list[str]]:
    """Return everything that instances leave anywhere; empty lists when there is none."""
    assert daemon.netns
    root = Path(daemon.dir)
    # Layout and table names are the public ones of docs/architecture.md.
    found = {
        "mounts": [point for point in daemon.leaks.mounts() if prefix in point or "/containers/" in point],
        "interfaces": [link for link in daemon.netns.links() if link.startswith("veth")],
        "cgroups": daemon.leaks.cgroups(),
        # os.walk passes over what vanishes while it looks.
        "paths": sorted(
            f"{directory}/{name}"
            for directory, directories, files in os.walk(root)
            for name in (*directories, *files)
            if prefix in name
        ),
        "processes": [args for args in daemon.leaks.processes(daemon.netns).values() if prefix in args],
    }
    with sqlite3.connect(f"file:{root}/database/pylxc.db?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = [str(row) for row in database.execute(f'SELECT * FROM "{table}"') if prefix in str(row)]
            found[f"rows of {table}"] = rows
    return {kind: things for kind, things in found.items() if things}


def settled(look: Callable[[], dict[str, list[str]]]) -> dict[str, list[str]]:
    """Return what `look` finds, after some time to go away when it finds anything."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def strays(daemon: Daemon, prefix: str) -> dict[str, list[str]]:
    """Return the traces that belong to no instance that the daemon knows."""
    known = set(daemon.instances())

    def stray(text: str) -> bool:
        return not any(re.search(rf"{name}(?!\d)", text) for name in known)

    found = traces(daemon, prefix)
    # Interfaces do not carry instance names: one per running instance is right.
    running = sum(status == "Running" for status in daemon.instances().values())
    if len(found.get("interfaces", [])) == running:
        found.pop("interfaces", None)
    found = {kind: [thing for thing in things if stray(thing)] for kind, things in found.items()}
    return {kind: things for kind, things in found.items() if things}


@pytest.mark.timeout(900)
def test_killed_daemon_leaves_no_orphan(
    make_daemon: Callable[[], Daemon], busybox_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    seed = int(os.environ.get("PYLXC_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"PYLXC_CRASH_SEED={seed}")
    moments = random.Random(seed)
    prefix = unique("crash")
    daemon = make_daemon()
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_AND_BRIDGE})
    image = daemon.import_image("busybox", busybox_files)
    once(daemon, image, f"{prefix}-0")  # makes the image's volume
    begin = time.monotonic()
    once(daemon, image, f"{prefix}-0")
    cycle_seconds = time.monotonic() - begin
    assert settled(lambda: traces(daemon, prefix)) == {}

    loop = Loop(daemon, image, prefix)
    loop.start()
    for kill in range(KILLS):
        loop.await_cycle()
        moment = moments.uniform(0, cycle_seconds)
        time.sleep(moment)
        loop.alive.clear()
        daemon.signal(signal.SIGKILL)
        daemon.start()
        found = settled(lambda: strays(daemon, prefix))
        assert found == {}, f"after kill {kill} of seed {seed}, {moment * 1000:.0f} ms into a cycle"
        loop.alive.set()
    loop.end()

    left = daemon.instances()
    say(f"{loop.cycles} whole cycles, {len(left)} instances were cut off: {sorted(left.items())}")
    for name, status in left.items():
        if status != "Running":
            daemon.request("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
        body = {"command": ["true"], "wait-for-websocket": False, "interactive": False}
        assert daemon.request("POST", f"/1.0/instances/{name}/exec", body)["return"] == 0, (
            f"{name} is no whole instance"
        )
    daemon.delete_all()
    assert settled(lambda: traces(daemon, prefix)) == {}
