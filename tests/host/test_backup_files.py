"""backup.yaml beside each instance's rootfs/, as changes of the instance leave it."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.daemon import Daemon, unique
from tests.support.wait import until


@pytest.fixture
def source(pools_daemon: Daemon) -> str:
    name = unique("s")
    pools_daemon.command("init", "busybox", name)
    return name


def path_of(daemon: Daemon, name: str, pool: str = "dir") -> Path:
    return Path(daemon.dir, "storage-pools", pool, "containers", name, "backup.yaml")


def read(daemon: Daemon, name: str, pool: str = "dir") -> dict[str, Any]:
    path = path_of(daemon, name, pool)
    data: dict[str, Any] = yaml.safe_load(path.read_text()) if path.exists() else {"container": {"config": {}}}
    return data


def has(daemon: Daemon, name: str, key: str, value: str, pool: str = "dir") -> bool:
    return bool(read(daemon, name, pool)["container"]["config"].get(key) == value)


def test_follows_every_change(pools_daemon: Daemon, source: str) -> None:
    daemon = pools_daemon
    assert until(lambda: path_of(daemon, source).exists(), "it is written")
    assert path_of(daemon, source).stat().st_mode & 0o777 == 0o600
    daemon.command("config", "set", source, "user.mark=yes")
    daemon.command("config", "device", "add", source, "d1", "disk", "source=/tmp", "path=/d1")
    assert until(lambda: "d1" in read(daemon, source)["container"]["devices"], "it has the device")
    assert has(daemon, source, "user.mark", "yes")
    daemon.command("snapshot", source, "s0")
    assert until(lambda: [s["name"] for s in read(daemon, source)["snapshots"]] == ["s0"], "it has the snapshot")
    profile = unique("p")
    daemon.command("profile", "create", profile)
    daemon.command("profile", "add", source, profile)
    assert until(lambda: read(daemon, source)["container"]["profiles"] == ["default", profile], "it has the profile")
    daemon.command("profile", "set", profile, "user.profile=1")
    assert until(lambda: read(daemon, source)["profiles"][1]["config"] == {"user.profile": "1"}, "and its change")
    new = unique("n")
    daemon.command("rename", source, new)
    assert until(lambda: read(daemon, new)["container"].get("name") == new, "it has the new name")
    daemon.command("move", new, "--storage", "btrfs")
    assert until(lambda: has(daemon, new, "user.mark", "yes", "btrfs"), "it has moved")
    assert until(lambda: read(daemon, new, "btrfs")["pool"]["name"] == "btrfs", "it has the new pool")


def test_a_run_does_not_change_it(pools_daemon: Daemon, source: str) -> None:
    daemon = pools_daemon
    daemon.command("start", source)
    daemon.command("config", "set", source, "user.mark=started")
    assert until(lambda: has(daemon, source, "user.mark", "started"), "it is written")
    before = path_of(daemon, source).stat()
    daemon.command("stop", "--force", source)
    daemon.command("start", source)
    other = unique("o")
    daemon.command("init", "busybox", other)
    assert until(lambda: path_of(daemon, other).exists(), "what came later is written")
    assert path_of(daemon, source).stat().st_ino == before.st_ino
    assert "volatile.last_state.power" not in read(daemon, source)["container"]["config"]


@pytest.mark.parametrize("pool", ["btrfs", "dir"])
def test_a_tree_of_another_instance_gets_its_own(pools_daemon: Daemon, source: str, pool: str) -> None:
    daemon, copy = pools_daemon, unique("c")
    assert until(lambda: path_of(daemon, source).exists(), "it is written")
    daemon.command("copy", source, copy, "--storage", pool)
    assert until(lambda: read(daemon, copy, pool)["container"].get("name") == copy, "it has its own")
    daemon.command("copy", source, copy, "--refresh")
    assert until(lambda: read(daemon, copy, pool)["container"].get("name") == copy, "it has its own again")


def test_what_a_daemon_did_not_write_the_next_one_does(pools_daemon: Daemon, source: str) -> None:
    daemon = pools_daemon
    assert until(lambda: path_of(daemon, source).exists(), "it is written")
    daemon.command("config", "set", source, "user.mark=last")
    daemon.signal(signal.SIGKILL)
    path_of(daemon, source).write_text("container: {config: {}}\n")
    daemon.start()
    assert until(lambda: has(daemon, source, "user.mark", "last"), "it is written")
    daemon.command("config", "set", source, "user.mark=stopped")
    assert daemon.stop() == 0
    assert has(daemon, source, "user.mark", "stopped")
    with sqlite3.connect(f"{daemon.dir}/database/pylxc.db") as database:
        assert database.execute("SELECT count(*) FROM instances WHERE name = ?", (source,)).fetchone() == (1,)
    daemon.start()


def test_copies_meet_no_file_that_goes(pools_daemon: Daemon) -> None:
    """A tree is copied file by file: one that is replaced meanwhile would end that."""
    daemon, name = pools_daemon, unique("s")
    daemon.command("init", "busybox", name)
    tree = path_of(daemon, name).parent / "rootfs" / "many"
    tree.mkdir()
    for number in range(3000):
        (tree / str(number)).touch()
    for number in range(4):
        daemon.command("config", "set", name, f"user.mark={number}")
        daemon.command("snapshot", name, f"s{number}")
    for number in range(4):
        daemon.command("config", "set", name, f"user.mark=again{number}")
        daemon.command("copy", name, unique("c"))
    assert until(lambda: has(daemon, name, "user.mark", "again3"), "the last is written")
