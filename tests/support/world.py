"""What a daemon shows of instances beside what is on the disk, and changes of it that a test can do and foretell."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support import tree
from tests.support.daemon import Daemon

POOLS = ("btrfs", "dir")
"""The names of the pools, and their drivers."""
MOST_INSTANCES = 5
MOST_SNAPSHOTS = 2


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
        with self.daemon.database() as database:
            for query in (
                "SELECT name FROM instances WHERE state != 'created' OR new_name != '' OR restoring != ''",
                "SELECT name FROM instances_snapshots WHERE state != 'created' OR new_name != ''",
                "SELECT name FROM storage_volumes WHERE state != 'created'",
                "SELECT name FROM backups",
            ):
                found += [f"row {row[0]} of {query}" for row in database.execute(query)]
            query = (
                "SELECT p.name, v.name FROM storage_volumes v JOIN storage_pools p ON p.id = v.storage_pool_id "
                "WHERE v.type = 'container'"
            )
            volumes = {(i["expanded_devices"]["root"]["pool"], i["name"]) for i in world}
            found += [f"volume {volume}" for volume in set(database.execute(query)) ^ volumes]
        return found

    def wrong(self, *allowed: World) -> list[str]:
        """Look, and return in what the world is none of those that are allowed, or what belongs to nothing in it."""
        self.world = self.look()
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

    def copy(self, name: str, pool: str = "") -> Act:
        new, pool = self.new_name("c"), pool or self.choices.choice(POOLS)
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

    def take_backup(self, pool: str = "") -> Act:
        new, pool = self.new_name("i"), pool or self.choices.choice(POOLS)
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
            self.daemon.wait(self.daemon.parse(answer)["operation"])
        elif act.what == "export":
            self.daemon.send(act.method, act.path)
        else:
            self.daemon.request(act.method, act.path, act.body)


def root(pool: str) -> dict[str, dict[str, str]]:
    return {"root": {"type": "disk", "path": "/", "pool": pool}}


def digest(volume: str) -> str:
    """Return a digest of a volume's files that running does not change: of everything that a tree can hold."""
    described = tree.describe(f"{volume}/rootfs/data")
    # Sorted all the way down: a file system lists xattrs in the order in which they were set.
    found = hashlib.sha256(json.dumps(described, sort_keys=True, default=repr).encode()).hexdigest()
    _described[found] = described
    return found


_described: dict[str, dict[str, Any]] = {}
"""What was seen, by its digest, to tell differences."""


def mixed(world: World, before: World, act: Act) -> World:
    """Return what the world has to be in the middle of a refresh: each tree from before or after."""
    expected = dict(before)
    for name in act.mixes:
        trees = {}
        for tree_name, found in world[name].trees.items():
            allowed = [part[name].trees.get(tree_name) for part in (before, act.after)]
            trees[tree_name] = found if found in allowed else str(allowed[-1])
        kept = before[name].trees.items() & act.after[name].trees.items()
        expected[name] = replace(before[name], trees={**dict(kept), **trees})
    return expected


def differences(world: World, allowed: Iterable[World]) -> str:
    lines = []
    for wanted in allowed:
        for name in sorted(world.keys() | wanted.keys()):
            there, right = world.get(name), wanted.get(name)
            if there == right:
                continue
            lines.append(f"{name}: {there} is not {right}")
            if there and right:
                for each in there.trees.keys() & right.trees.keys():
                    lines += _tree_differences(there.trees[each], right.trees[each])
    return "\n".join(lines)


def _tree_differences(there: str, right: str) -> list[str]:
    found, wanted = _described.get(there, {}), _described.get(right, {})
    paths = [path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path)]
    return [f"{path}: {found.get(path)} is not {wanted.get(path)}" for path in sorted(paths)]
