"""kill -9 of the daemon at random moments of what changes volumes: what is shown afterwards is whole, all else is gone.

Two daemons go through it at the same time, each with a pool of every driver. PYLXC_CRASH_SEED=N repeats a run's
choices; PYLXC_CRASH_STORAGE_KILLS=N takes another number of moments.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import tree
from tests.support.daemon import ApiError, Daemon
from tests.support.wait import until
from tests.support.world import Act, Host, World, mixed, root

KILLS = int(os.environ.get("PYLXC_CRASH_STORAGE_KILLS", "100"))
SETTLE_SECONDS = 10
"""Trash is emptied beside everything else, and so is started again what was stopped for a moment."""
CUT_OFF = (OSError, http.client.HTTPException, ValueError)
"""What a request ends with when the daemon dies."""


def prepare(host: Host, files: list[str]) -> None:
    """Make a world: a stopped instance in every pool and one that runs, each with a snapshot; and a backup."""
    daemon = host.daemon
    daemon.start()
    preseed = {
        "storage_pools": [
            {"name": "btrfs", "driver": "btrfs", "config": {"size": "1GiB"}},
            {"name": "dir", "driver": "dir"},
        ],
        "profiles": [{"name": "default", "devices": root("dir")}],
    }
    daemon.command("admin", "init", "--preseed", input=json.dumps(preseed))
    daemon.import_image("busybox", files)
    daemon.command("init", "busybox", "a", "--storage", "btrfs")
    data = f"{host.pool('btrfs')}/containers/a/rootfs/data"
    os.mkdir(data)
    tree.build(data, files=5)
    for name in ("b", "r"):  # copies, as a refresh takes two files of one size and time to be the same
        daemon.command("copy", "a", name, "--storage", "dir")
    host.world = host.look()
    for name in host.world:
        host.mark(name)
        daemon.command("snapshot", name, "s0")
    daemon.command("start", "r")
    host.world = host.look()
    host.backup = daemon.send("GET", "/1.0/instances/b/export?compression=none")
    made = host.take_backup()
    host.do(made)
    (new,) = host.look().keys() - host.world.keys()
    host.world = host.look()
    host.imported = host.world[new]


def kill(host: Host, number: int, seed: str) -> None:
    """Kill the daemon in the middle of a change, start the next one, and see what it makes of it."""
    before, act = host.world, host.choose()
    usual = host.seconds.get(act.what, 0.1)
    moment = host.choices.uniform(0, 1.15) * usual
    outcome: list[Exception | float] = []

    def run() -> None:
        begin = time.monotonic()
        try:
            host.do(act)
            outcome.append(time.monotonic() - begin)
        except (ApiError, *CUT_OFF) as error:
            outcome.append(error)

    before = host.world  # `choose` may have changed files
    running = threading.Thread(target=run)
    running.start()
    running.join(moment)
    is_done = not running.is_alive()
    host.daemon.signal(signal.SIGKILL)
    running.join()
    host.history.append(
        f"kill {number}, {moment * 1000:.0f} ms into {act.what}: {act.method} {act.path} {act.body}: {outcome[0]}"
    )
    where = "\n".join([seed, *host.history[-3:]])
    if is_done and isinstance(outcome[0], float):
        host.seconds[act.what] = outcome[0]
    elif not is_done:
        host.seconds[act.what] = max(usual, moment * 1.3)
    assert not isinstance(outcome[0], ApiError), f"{where}: {outcome[0]}"
    host.daemon.start()
    deadline = time.monotonic() + SETTLE_SECONDS
    while (wrong := amiss(host, before, act, is_done)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not wrong, f"{where}: {wrong}"


def amiss(host: Host, before: World, act: Act, is_done: bool) -> list[str]:
    """Return what should not be so after a change that was done or cut off."""
    if is_done:
        return host.wrong(act.after)
    if act.mixes:
        return host.wrong(mixed(host.look(), before, act))
    return host.wrong(before, act.after)


@pytest.mark.timeout(900)
def test_killed_daemon_leaves_everything_whole(
    make_daemon: Callable[[], Daemon], busybox_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("PYLXC_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        sys.stdout.write(f"\nPYLXC_CRASH_SEED={seed}\n")
    over = threading.Event()

    def go(half: int) -> None:
        host = Host(make_daemon(), random.Random(f"{seed}/{half}"))
        try:
            prepare(host, busybox_files)
            for number in range(half, KILLS, 2):
                if over.is_set():
                    return
                kill(host, number, f"seed {seed}")
            host.daemon.delete_all()
            host.world = {}
            until(lambda: not host.strays(), "nothing is left")
        finally:
            over.set() if sys.exception() else None

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(go, half) for half in range(2)]:
            done.result()
