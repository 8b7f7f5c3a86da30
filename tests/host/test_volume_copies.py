"""Snapshots, copies and moves of custom volumes, some of which guests run with."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pylxc.wire.times import NEVER
from tests.support import tree
from tests.support.clock import Clock
from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.volumes import POOLS, devices, directory, refused, run, snapshots, volume_url
from tests.support.wait import until


@pytest.fixture(scope="module")
def host(pools_daemon: Daemon) -> Daemon:
    return pools_daemon


# Snapshots


def test_snapshots(host: Daemon, guests: tuple[str, str, str], pool: str, volume: str) -> None:
    guest = guests[0]
    host.command("storage", "volume", "attach", pool, volume, guest, "/snap")
    run(host, guest, "echo before > /snap/file; chown 5 /snap/file; chmod 1777 /snap")
    host.command("storage", "volume", "snapshot", pool, volume)
    run(host, guest, "echo after > /snap/file; echo new > /snap/new")
    host.command("storage", "volume", "set", pool, volume, "snapshots.pattern=at-%d", "snapshots.expiry=1d")
    host.command("storage", "volume", "snapshot", pool, volume)
    host.command("storage", "volume", "snapshot", pool, volume, "kept", "--no-expiry")
    assert snapshots(host, pool, volume) == ["snap0", "at-0", "kept"]
    expiry = [s["expires_at"] for s in host.request("GET", f"{volume_url(pool, volume)}/snapshots?recursion=1")]
    assert [one != NEVER for one in expiry] == [False, True, False]
    assert "used by running instances" in refused(host, "restore", pool, volume, "snap0")
    host.command("storage", "volume", "detach", pool, volume, guest)
    host.command("storage", "volume", "rename", pool, f"{volume}/snap0", f"{volume}/first")
    host.command("storage", "volume", "restore", pool, volume, "first")
    host.command("storage", "volume", "attach", pool, volume, guest, "/snap")
    assert (
        run(host, guest, "cat /snap/file; stat -c '%u %a' /snap/file /snap; ls /snap") == "before\n5 644\n0 1777\nfile"
    )
    host.command("storage", "volume", "detach", pool, volume, guest)
    assert refused(host, "snapshot", pool, volume, "kept") == 'Snapshot "kept" already in use'
    host.command("storage", "volume", "snapshot", pool, volume, "kept", "--reuse")
    host.command("storage", "volume", "delete", pool, f"{volume}/first")
    assert snapshots(host, pool, volume) == ["at-0", "kept"]
    host.command("storage", "volume", "unset", pool, volume, "snapshots.expiry")
    host.command("storage", "volume", "unset", pool, volume, "snapshots.expiry")  # what is not set, as with lxc
    assert refused(host, "set", pool, f"{volume}/kept", "user.a=1").startswith("Snapshots are read-only")
    assert host.request("GET", volume_url(pool, volume))["config"] == {"snapshots.pattern": "at-%d"}
    host.command("storage", "volume", "delete", pool, volume)
    assert not os.path.exists(os.path.dirname(directory(host, pool, volume, "kept")))


def test_what_is_copied_is_of_one_moment(host: Daemon, guests: tuple[str, str, str], pool: str, volume: str) -> None:
    """Two files that a guest writes in turn are at most one step apart in a snapshot and in a copy, as it pauses."""
    guest, other, copy = guests[0], POOLS[1 - POOLS.index(pool)], unique("v")
    for number in range(3000):
        Path(directory(host, pool, volume), f"m{number:04}").write_text("x" * 200)
    host.command("storage", "volume", "attach", pool, volume, guest, "/live")
    step = "i=$((i+1)); echo $i > /live/new; mv /live/new /live/a; echo $i > /live/new; mv /live/new /live/z"
    run(
        host, guest, f"echo 0 > /live/a; (i=0; while [ ! -e /live/stop ]; do {step}; done) > /dev/null 2>&1 & sleep 0.2"
    )
    host.command("storage", "volume", "snapshot", pool, volume, "s0")
    host.command("storage", "volume", "copy", f"{pool}/{volume}", f"{other}/{copy}", "--volume-only")
    count = int(run(host, guest, "cat /live/a; touch /live/stop"))
    for where in (directory(host, pool, volume, "s0"), directory(host, other, copy)):
        first, last = (int(Path(where, name).read_text()) for name in ("a", "z"))
        assert 0 <= first - last <= 1
        assert first < count
    host.command("storage", "volume", "detach", pool, volume, guest)


def test_on_schedule(make_daemon: Callable[..., Daemon]) -> None:
    """The real daemon takes and removes snapshots by a clock that the test sets."""
    daemon = make_daemon()
    clock = Clock(daemon)
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    daemon.command("storage", "set", "default", "volume.snapshots.expiry=90M")
    daemon.command("storage", "volume", "create", "default", "v", "snapshots.schedule=@hourly")
    daemon.command("storage", "volume", "create", "default", "quiet")
    clock.advance(minutes=61)
    until(lambda: snapshots(daemon, "default", "v") == ["snap0"], "a snapshot is taken")
    clock.advance(minutes=60)
    until(lambda: snapshots(daemon, "default", "v") == ["snap0", "snap1"], "another one is taken")
    clock.advance(minutes=31)
    until(lambda: "snap0" not in snapshots(daemon, "default", "v"), "the first one expires")
    assert snapshots(daemon, "default", "quiet") == []


# Copies and moves


def fill(host: Daemon, pool: str, name: str) -> Any:
    where = directory(host, pool, name)
    os.mkdir(f"{where}/all")
    tree.build(f"{where}/all", files=20)
    os.chmod(where, 0o2770)
    os.chown(where, 33, 34)
    return tree.describe(where)


@pytest.mark.parametrize("target", POOLS)
def test_copies(host: Daemon, pool: str, volume: str, target: str) -> None:
    whole = fill(host, pool, volume)
    host.command("storage", "volume", "set", pool, volume, "user.mark=yes")
    host.command("storage", "volume", "snapshot", pool, volume, "s0")
    Path(directory(host, pool, volume), "later").write_text("1")
    copy, old, alone = unique("v"), unique("v"), unique("v")
    host.command("storage", "volume", "copy", f"{pool}/{volume}", f"{target}/{copy}")
    host.command("storage", "volume", "copy", f"{pool}/{volume}/s0", f"{target}/{old}")
    host.command("storage", "volume", "copy", f"{pool}/{volume}", f"{target}/{alone}", "--volume-only")
    assert tree.describe(directory(host, target, copy)) == tree.describe(directory(host, pool, volume))
    assert tree.describe(directory(host, target, copy, "s0")) == whole
    assert tree.describe(directory(host, target, old)) == whole
    assert [snapshots(host, target, name) for name in (copy, old, alone)] == [["s0"], [], []]
    assert host.request("GET", volume_url(target, copy))["config"]["user.mark"] == "yes"
    # Brought up to date: its tree and its snapshots, but not its configuration.
    assert "--refresh" in refused(host, "copy", f"{pool}/{volume}", f"{target}/{copy}")
    host.command("storage", "volume", "set", target, copy, "user.mark=own")
    host.command("storage", "volume", "delete", pool, f"{volume}/s0")
    Path(directory(host, pool, volume), "later").unlink()
    Path(directory(host, pool, volume), "all/many/3").write_text("changed")
    host.command("storage", "volume", "snapshot", pool, volume, "s1")
    host.command("storage", "volume", "copy", f"{pool}/{volume}", f"{target}/{copy}", "--refresh")
    assert tree.describe(directory(host, target, copy)) == tree.describe(directory(host, pool, volume))
    assert snapshots(host, target, copy) == ["s1"]
    assert host.request("GET", volume_url(target, copy))["config"]["user.mark"] == "own"


def test_moves(host: Daemon, pool: str, volume: str) -> None:
    """Instances and profiles follow to another pool and name; what runs with it keeps it where it is."""
    other = POOLS[1 - POOLS.index(pool)]
    guest, profile, new = unique("c"), unique("p"), unique("v")
    host.command("launch", "busybox", guest)
    host.command("profile", "create", profile)
    whole = fill(host, pool, volume)
    host.command("storage", "volume", "snapshot", pool, volume, "s0")
    host.command("storage", "volume", "attach", pool, volume, guest, "data", "/data")
    host.command("storage", "volume", "attach-profile", pool, volume, profile, "/data")
    assert "in use by running instances" in refused(host, "move", f"{pool}/{volume}", f"{other}/{new}")
    host.command("stop", "--force", guest)
    host.command("storage", "volume", "move", f"{pool}/{volume}", f"{other}/{new}")
    assert tree.describe(directory(host, other, new)) == whole
    assert tree.describe(directory(host, other, new, "s0")) == whole
    assert not os.path.exists(directory(host, pool, volume))
    for device in (devices(host, "instances", guest)["data"], devices(host, "profiles", profile)[volume]):
        assert (device["pool"], device["source"]) == (other, new)
    host.command("start", guest)
    assert run(host, guest, "stat -c '%u %g' /data") == "33 34"
    assert refused(host, "move", f"{other}/{new}", "nowhere/x") == "Storage pool not found"


def test_no_room(host: Daemon, tmp_path: Path) -> None:
    """One clear line, and nothing is lost or left behind; deleting makes room again."""
    pool, volume, other = unique("small"), unique("v"), unique("v")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", tmp_path], check=True)
    try:
        host.command("storage", "create", pool, "dir", f"source={tmp_path}")
        for where, name, text in ((pool, volume, "a"), ("dir", other, "b")):
            host.command("storage", "volume", "create", where, name)
            Path(directory(host, where, name), "file").write_text(text * (8 << 20))
        host.command("storage", "volume", "snapshot", pool, volume, "s0")
        before = host.request("GET", f"/1.0/storage-pools/{pool}/volumes?recursion=1")
        for words in (
            ("snapshot", pool, volume, "s1"),
            ("restore", pool, volume, "s0"),
            ("copy", f"{pool}/{volume}", f"{pool}/new"),
            ("copy", f"dir/{other}", f"{pool}/new"),
            ("copy", f"dir/{other}", f"{pool}/{volume}", "--refresh"),
            ("move", f"dir/{other}", f"{pool}/{other}"),
        ):
            assert "No space left on device" in refused(host, *words)
            assert host.request("GET", f"/1.0/storage-pools/{pool}/volumes?recursion=1") == before
            assert Path(directory(host, pool, volume), "file").read_text() == "a" * (8 << 20)
            assert os.listdir(tmp_path / "custom") == [f"default_{volume}"]
            assert os.listdir(tmp_path / "custom-snapshots" / f"default_{volume}") == ["s0"]
        assert Path(directory(host, "dir", other), "file").read_text() == "b" * (8 << 20)
        host.command("storage", "volume", "delete", pool, f"{volume}/s0")
        host.command("storage", "volume", "move", f"dir/{other}", f"{pool}/{other}")
        for name in (volume, other):
            host.command("storage", "volume", "delete", pool, name)
        host.command("storage", "delete", pool)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
