"""Everything that a tree can hold comes through whatever is done with an instance; `tree.describe` tells what that is.

A backup leaves out sockets, which tar has not, and an import device nodes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.host.test_publish import without_nodes
from tests.support import tree
from tests.support.daemon import Daemon, unique
from tests.support.world import POOLS


class Trees:
    """What the volumes of instances hold."""

    def __init__(self, daemon: Daemon) -> None:
        self._pools = f"{daemon.dir}/storage-pools"

    def path(self, pool: str, name: str) -> str:
        return f"{self._pools}/{pool}/containers/{name}/rootfs"

    def of(self, pool: str, name: str) -> list[dict[str, Any]]:
        """Return what an instance and its snapshot s0 hold."""
        places = (self.path(pool, name), f"{self._pools}/{pool}/containers-snapshots/{name}/s0/rootfs")
        return [tree.describe(place) for place in places]


@pytest.mark.parametrize("pool", POOLS)
def test_every_file(pools_daemon: Daemon, pool: str, tmp_path: Path) -> None:
    name, other = unique("s"), next(each for each in POOLS if each != pool)
    run, trees = pools_daemon.command, Trees(pools_daemon)
    run("init", "busybox", name, "--storage", pool)
    root = trees.path(pool, name)
    os.mkdir(f"{root}/all")
    tree.build(f"{root}/all")
    old = tree.describe(root)
    run("snapshot", name, "s0")
    shutil.rmtree(f"{root}/all/private")
    Path(root, "all/bin/setuid").write_bytes(b"changed")
    Path(root, "late").touch()
    new = tree.describe(root)
    assert old != new
    assert trees.of(pool, name) == [new, old]

    for target in POOLS:
        run("copy", name, f"{name}-{target}", "--storage", target)
        assert trees.of(target, f"{name}-{target}") == [new, old]
        run("copy", f"{name}/s0", f"{name}-of-s0", "--storage", target)
        assert tree.describe(trees.path(target, f"{name}-of-s0")) == old
        run("delete", f"{name}-of-s0")
    for target in (other, pool):
        run("move", name, "--storage", target)
        assert trees.of(target, name) == [new, old]
    run("export", name, f"{tmp_path}/backup")
    run("restore", name, "s0")
    assert trees.of(pool, name) == [old, old]
    for target in POOLS:
        run("copy", name, f"{name}-{target}", "--refresh")
        assert trees.of(target, f"{name}-{target}") == [old, old]
        run("import", f"{tmp_path}/backup", f"{name}-again", "--storage", target)
        assert portable(*trees.of(target, f"{name}-again")) == portable(new, old)
        run("delete", f"{name}-again")


def portable(*described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an import brings back; the time of a directory changes with the nodes that were in it."""
    return [{**without_nodes(each), "all": None} for each in described]
