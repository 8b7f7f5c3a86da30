"""kill -9 of the daemon at random moments of what changes volumes: what is shown afterwards is whole, all else is gone.

Two daemons go through it at the same time, each with a pool of every driver. PYLXC_CRASH_SEED=N repeats a run's
choices; PYLXC_CRASH_STORAGE_KILLS=N takes another number of moments.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import tree
from tests.support.daemon import ApiError, Daemon
from tests.support.wait import until

KILLS = int(os.environ.get("PYLXC_CRASH_STORAGE_KILLS", "100"))
POOLS = ("btrfs", "dir")
MOST_INSTANCES = 5
MOST_SNAPSHOTS = 2
SETTLE_SECONDS = 10
"""Trash is emptied beside everything else, and so is started again what was stopped for a moment."""
CUT_OFF = (OSError, http.client.HTTPException, ValueError)
"""What a request ends with when the daemon dies."""


@dataclass(frozen=True)
class Seen:
    """An instance as it is shown, and what its files are: digests by name, "" being the instance's own."""

    pool: str
    status: str
    trees: dict[str, str]


World = dict[str, Seen]


@dataclass
class Act:
    """A change: what is asked for, and what the world is once it is done.

    `mixes` are instances whose snapshots may be in the middle of it, each of them whole.
    """

    what: str
    method: str
    path: str
    body: Any
    after: World
    mixes: tuple[str, ...] = ()


@dataclass
class Host:
    """A daemon, its world, and what to do to it."""

    daemon: Daemon
    choices: random.Random
    backup: bytes = b""
    imported: Seen = field(default_factory=lambda: Seen("", "", {}))
    world: World = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    count: int = 0

    def new_name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # The world

    def look(self) -> World:
        """Return what the daemon shows, with the files' digests from the disk."""
        found = {}
        for instance in self.daemon.request("GET", "/1.0/instances?recursion=2"):
            name, pool = instance["name"], instance["expanded_devices"]["root"]["pool"]
            trees = {"": digest(f"{self.pool(pool)}/containers/{name}")}
            for snapshot in instance["snapshots"] or []:
                trees[snapshot["name"]] = digest(f"{self.pool(pool)}/containers-snapshots/{name}/{snapshot['name']}")
            found[name] = Seen(pool, instance["status"], trees)
        return found

    def pool(self, name: str) -> str:
        return f"{self.daemon.dir}/storage-pools/{name}"

    def strays(self) -> list[str]:
        """Return what lies on the disk, in the kernel or in the database and belongs to nothing that is shown."""
        world, found = self.daemon.request("GET", "/1.0/instances?recursion=2"), []
        for pool in POOLS:
            own = [i for i in world if i["expanded_devices"]["root"]["pool"] == pool]
            right = {f"containers/{i['name']}" for i in own}
            right |= {f"containers-snapshots/{i['name']}" for i in own if i["snapshots"]}
            right |= {f"containers-snapshots/{i['name']}/{s['name']}" for i in own for s in i["snapshots"] or []}
            base = Path(self.pool(pool))
            paths = [*base.glob("containers/*"), *base.glob("containers-snapshots/*"), *base.glob(".trash/*")]
            paths += [*base.glob("containers-snapshots/*/*"), *base.glob("custom*/*")]
            paths += base.glob(".staging/*/*" if pool == "dir" else ".staging/*")
            found += [f"{pool}: {path}" for path in {str(p.relative_to(base)) for p in paths} ^ right]
        found += [f"backup {name}" for name in os.listdir(f"{self.daemon.dir}/backups")]
        found += [f"mount {point}" for point in self.daemon.leaks.mounts() if point != self.pool("btrfs")]
        found += self.daemon.leaks.loops()[1:]
        with sqlite3.connect(f"file:{self.daemon.dir}/database/pylxc.db?mode=ro", uri=True) as database:
            for query in (
                "SELECT name FROM instances WHERE state != 'created' OR new_name != '' OR restoring != ''",
                "SELECT name FROM instances_snapshots WHERE state != 'created' OR new_name != ''",
                "SELECT name FROM storage_volumes WHERE state != 'created'",
                "SELECT name FROM instances_backups",
            ):
                found += [f"row {row[0]} of {query}" for row in database.execute(query)]
            query = (
                "SELECT p.name, v.name FROM storage_volumes v JOIN storage_pools p ON p.id = v.storage_pool_id "
                "WHERE v.type = 'container'"
            )
            volumes = {(i["expanded_devices"]["root"]["pool"], i["name"]) for i in world}
            found += [f"volume {volume}" for volume in set(database.execute(query)) ^ volumes]
        return found

    def wrong(self, before: World, act: Act, is_done: bool) -> list[str]:
        """Look, and return what should not be so after a change that was done or cut off."""
        self.world = self.look()
        allowed = [act.after] if is_done else [before, act.after]
        if act.mixes and not is_done:
            allowed = [mixed(self.world, before, act)]
        return self.strays() if self.world in allowed else [differences(self.world, allowed)]

    # Changes

    def mark(self, name: str) -> None:
        """Change an instance's files."""
        where = f"{self.pool(self.world[name].pool)}/containers/{name}"
        Path(where, "rootfs/data/version").write_text(str(self.choices.random()))
        self.world[name].trees[""] = digest(where)

    def choose(self) -> Act:
        """Return the next change."""
        stopped = [name for name, seen in self.world.items() if seen.status == "Stopped"]
        name = self.choices.choice(list(self.world))
        if len(stopped) > MOST_INSTANCES:
            return self.delete(self.choices.choice(stopped))
        if len(self.world[name].trees) > MOST_SNAPSHOTS + 1:
            return self.delete_snapshot(name)
        acts: list[Callable[[], Act]] = [lambda: self.snapshot(name), lambda: self.copy(name), self.take_backup]
        if self.world[name].status == "Stopped":
            acts += [lambda: self.rename(name), lambda: self.move(name)]
        if len(self.world[name].trees) > 1:
            acts += [lambda: self.restore(name), lambda: self.restore(name), lambda: self.rename_snapshot(name)]
        if others := [other for other in stopped if other != name]:
            acts += [lambda: self.refresh(name, self.choices.choice(others))] * 2
        if len(stopped) > 2:
            acts.append(lambda: self.delete(self.choices.choice(stopped)))
        acts.append(lambda: self.export(name))
        return self.choices.choice(acts)()

    def without(self, name: str) -> World:
        return {other: seen for other, seen in self.world.items() if other != name}

    def with_trees(self, name: str, trees: dict[str, str]) -> World:
        return {**self.world, name: replace(self.world[name], trees=trees)}

    def a_snapshot(self, name: str) -> str:
        return self.choices.choice([snapshot for snapshot in self.world[name].trees if snapshot])

    def snapshot(self, name: str) -> Act:
        new, trees = self.new_name("s"), self.world[name].trees
        after = self.with_trees(name, {**trees, new: trees[""]})
        return Act("snapshot", "POST", f"/1.0/instances/{name}/snapshots", {"name": new}, after)

    def delete_snapshot(self, name: str) -> Act:
        snapshot = self.a_snapshot(name)
        after = self.with_trees(name, {s: t for s, t in self.world[name].trees.items() if s != snapshot})
        return Act("delete snapshot", "DELETE", f"/1.0/instances/{name}/snapshots/{snapshot}", None, after)

    def rename_snapshot(self, name: str) -> Act:
        old, new = self.a_snapshot(name), self.new_name("s")
        after = self.with_trees(name, {new if s == old else s: t for s, t in self.world[name].trees.items()})
        return Act("rename snapshot", "POST", f"/1.0/instances/{name}/snapshots/{old}", {"name": new}, after)

    def restore(self, name: str) -> Act:
        self.mark(name)
        snapshot, trees = self.a_snapshot(name), self.world[name].trees
        after = self.with_trees(name, {**trees, "": trees[snapshot]})
        return Act("restore", "PUT", f"/1.0/instances/{name}", {"restore": snapshot}, after)

    def copy(self, name: str) -> Act:
        new, pool = self.new_name("c"), self.choices.choice(POOLS)
        after = {**self.world, new: replace(self.world[name], pool=pool, status="Stopped")}
        body = {"name": new, "source": {"type": "copy", "source": name}, "devices": root(pool)}
        return Act("copy", "POST", "/1.0/instances", body, after)

    def refresh(self, name: str, target: str) -> Act:
        self.mark(name)
        body = {"name": target, "source": {"type": "copy", "source": name, "refresh": True}}
        after = self.with_trees(target, self.world[name].trees)
        return Act("copy --refresh", "POST", "/1.0/instances", body, after, mixes=(target,))

    def rename(self, name: str) -> Act:
        new = self.new_name("n")
        after = {**self.without(name), new: self.world[name]}
        return Act("rename", "POST", f"/1.0/instances/{name}", {"name": new}, after)

    def move(self, name: str) -> Act:
        pool = next(pool for pool in POOLS if pool != self.world[name].pool)
        after = {**self.world, name: replace(self.world[name], pool=pool)}
        return Act("move", "POST", f"/1.0/instances/{name}", {"name": name, "pool": pool, "migration": True}, after)

    def take_backup(self) -> Act:
        new, pool = self.new_name("i"), self.choices.choice(POOLS)
        headers = {"X-LXD-name": new, "X-LXD-pool": pool, "Content-Type": "application/octet-stream"}
        after = {**self.world, new: replace(self.imported, pool=pool)}
        return Act("import", "POST", "/1.0/instances", headers, after)

    def export(self, name: str) -> Act:
        return Act("export", "GET", f"/1.0/instances/{name}/export?compression=none", None, self.world)

    def delete(self, name: str) -> Act:
        return Act("delete", "DELETE", f"/1.0/instances/{name}", None, self.without(name))

    def do(self, act: Act) -> None:
        """Do a change through the API, to its end."""
        if act.what == "import":
            answer = self.daemon.send(act.method, act.path, self.backup, act.body)
            self.daemon.wait(json.loads(answer)["operation"])
        elif act.what == "export":
            self.daemon.send(act.method, act.path)
        else:
            self.daemon.request(act.method, act.path, act.body)


def root(pool: str) -> dict[str, dict[str, str]]:
    return {"root": {"type": "disk", "path": "/", "pool": pool}}


def digest(volume: str) -> str:
    """Return a digest of a volume's files that running does not change: of everything that a tree can hold."""
    return hashlib.sha256(repr(sorted(tree.describe(f"{volume}/rootfs/data").items())).encode()).hexdigest()


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
    while (wrong := host.wrong(before, act, is_done)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not wrong, f"{where}: {wrong}"


def mixed(world: World, before: World, act: Act) -> World:
    """Return what the world has to be in the middle of a refresh: each tree from before or after."""
    expected = dict(before)
    for name in act.mixes:
        trees = {}
        for tree_name, found in world[name].trees.items():
            allowed = [part[name].trees.get(tree_name) for part in (before, act.after)]
            trees[tree_name] = found if found in allowed else str(allowed)
        kept = before[name].trees.items() & act.after[name].trees.items()
        expected[name] = replace(before[name], trees={**dict(kept), **trees})
    return expected


def differences(world: World, allowed: list[World]) -> str:
    return "\n".join(
        f"{name}: {world.get(name)} is not {wanted.get(name)}"
        for wanted in allowed
        for name in sorted(world.keys() | wanted.keys())
        if world.get(name) != wanted.get(name)
    )


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
