"""Copies of real instances, moves between pools, and copies that are brought up to date."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import tree
from tests.support.daemon import ApiError, Daemon, unique

POOLS = ("btrfs", "dir")


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(pools_daemon: Daemon, pool: str) -> str:
    """Return a stopped instance whose tree has everything that a file system can hold."""
    name = unique("s")
    pools_daemon.command("init", "busybox", name, "--storage", pool, "-c", "user.mark=yes")
    where = root(pools_daemon, pool, name)
    os.mkdir(f"{where}/all")
    tree.build(f"{where}/all", files=20)
    return name


def root(daemon: Daemon, pool: str, name: str) -> str:
    return f"{daemon.dir}/storage-pools/{pool}/containers/{name}/rootfs"


def snapshots(daemon: Daemon, name: str) -> list[str]:
    return [s["name"] for s in daemon.request("GET", f"/1.0/instances/{name}/snapshots?recursion=1")]


@pytest.mark.parametrize("target_pool", POOLS)
def test_a_copy_is_whole(pools_daemon: Daemon, source: str, pool: str, target_pool: str) -> None:
    pools_daemon.command("snapshot", source, "s0")
    copy = unique("c")
    pools_daemon.command("copy", source, copy, "--storage", target_pool, "-c", "user.own=1")
    assert tree.describe(root(pools_daemon, target_pool, copy)) == tree.describe(root(pools_daemon, pool, source))
    assert snapshots(pools_daemon, copy) == ["s0"]
    made = pools_daemon.request("GET", f"/1.0/instances/{copy}")
    original = pools_daemon.request("GET", f"/1.0/instances/{source}")
    assert (made["config"]["user.mark"], made["config"]["user.own"]) == ("yes", "1")
    assert made["expanded_devices"]["root"]["pool"] == target_pool
    for key in ("volatile.uuid", "volatile.cloud-init.instance-id"):
        assert made["config"][key] != original["config"][key]
    Path(root(pools_daemon, target_pool, copy), "only-here").touch()
    assert not os.path.exists(f"{root(pools_daemon, pool, source)}/only-here")
    pools_daemon.command("start", copy)
    pools_daemon.command("restore", copy, "s0")
    assert pools_daemon.command("exec", copy, "--", "ls", "/only-here", check=False).returncode != 0


def test_a_running_instance_and_a_snapshot(pools_daemon: Daemon, pool: str) -> None:
    name = unique("s")
    pools_daemon.command("launch", "busybox", name, "--storage", pool)
    pools_daemon.command("exec", name, "--", "sh", "-c", "echo first > /note")
    pools_daemon.command("snapshot", name, "s0")
    pools_daemon.command("exec", name, "--", "sh", "-c", "echo second > /note")
    for what, text in ((name, "second\n"), (f"{name}/s0", "first\n")):
        copy = unique("c")
        pools_daemon.command("copy", what, copy, "--instance-only")
        assert pools_daemon.command("file", "pull", f"{copy}/note", "-").stdout == text
        assert pools_daemon.instances()[copy] == "Stopped"
        assert snapshots(pools_daemon, copy) == []
    assert pools_daemon.instances()[name] == "Running"


@pytest.mark.parametrize("target_pool", POOLS)
def test_a_copy_is_brought_up_to_date(pools_daemon: Daemon, source: str, pool: str, target_pool: str) -> None:
    pools_daemon.command("snapshot", source, "old")
    pools_daemon.command("snapshot", source, "kept")
    copy = unique("c")
    pools_daemon.command("copy", source, copy, "--storage", target_pool, "-c", "user.own=1")
    identity = pools_daemon.request("GET", f"/1.0/instances/{copy}")["config"]["volatile.uuid"]
    Path(root(pools_daemon, target_pool, copy), "surplus").touch()
    where = Path(root(pools_daemon, pool, source))
    (where / "new").write_text("new")
    (where / "all/bin/setuid").write_bytes(b"changed")
    pools_daemon.command("delete", f"{source}/old")
    pools_daemon.command("snapshot", source, "fresh")
    pools_daemon.command("config", "set", source, "user.more=2")
    pools_daemon.command("copy", source, copy, "--refresh", "-c", "user.own=3", "-d", "root,limits.max=1MB")
    assert tree.describe(root(pools_daemon, target_pool, copy)) == tree.describe(str(where))
    assert snapshots(pools_daemon, copy) == ["kept", "fresh"]
    found = pools_daemon.request("GET", f"/1.0/instances/{copy}")
    config, disk = found["config"], found["devices"]["root"]
    assert (config["user.own"], config["user.more"], config["volatile.uuid"]) == ("3", "2", identity)
    assert (disk["pool"], disk["limits.max"]) == (target_pool, "1MB")
    pools_daemon.command("copy", source, copy, "--refresh")
    found = pools_daemon.request("GET", f"/1.0/instances/{copy}")
    assert "user.own" not in found["config"]
    assert found["expanded_devices"]["root"]["pool"] == target_pool


def test_a_move_to_another_pool(pools_daemon: Daemon, source: str, pool: str) -> None:
    other = next(name for name in POOLS if name != pool)
    pools_daemon.command("snapshot", source, "s0")
    before = tree.describe(root(pools_daemon, pool, source))
    pools_daemon.command("move", source, "--storage", other)
    assert tree.describe(root(pools_daemon, other, source)) == before
    assert not os.path.exists(root(pools_daemon, pool, source))
    assert source not in os.listdir(f"{pools_daemon.dir}/storage-pools/{pool}/containers-snapshots")
    pools_daemon.command("start", source)
    pools_daemon.command("restore", source, "s0")
    failed = pools_daemon.command("move", source, "--storage", pool, check=False)
    assert "must be stopped" in failed.stderr
    pools_daemon.command("move", f"{source}/s0", f"{source}/s1")
    assert snapshots(pools_daemon, source) == ["s1"]


def test_what_takes_the_place_of_something_outlives_the_host(pools_daemon: Daemon, tmp_path: Path) -> None:
    """The disk has all of it when the other is given up: that is what a cut of the power would leave."""
    disk, place, pool, name = tmp_path / "disk", tmp_path / "place", unique("p"), unique("s")
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", disk, "64M"], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    (place / "pool").mkdir()

    def left(volume: str) -> dict[str, Any]:
        (tmp_path / "left").mkdir(exist_ok=True)
        with open(place / "any", "w") as file:
            os.fsync(file)  # which has the names of all be on the disk, and not what is in them
        shutil.copyfile(disk, tmp_path / "copy")
        subprocess.run(["mount", "-o", "loop", tmp_path / "copy", tmp_path / "left"], check=True)
        try:
            return tree.describe(f"{tmp_path}/left/pool/{volume}")
        finally:
            subprocess.run(["umount", tmp_path / "left"], check=True)

    try:
        pools_daemon.command("storage", "create", pool, "dir", f"source={place}/pool")
        pools_daemon.command("init", "busybox", name)
        pools_daemon.command("snapshot", name, "s0")
        before = tree.describe(root(pools_daemon, "dir", name))
        pools_daemon.command("move", name, "--storage", pool)
        assert left(f"containers/{name}/rootfs") == before
        (place / f"pool/containers/{name}/rootfs/late").touch()
        pools_daemon.command("restore", name, "s0")
        assert left(f"containers/{name}/rootfs") == before
        pools_daemon.command("storage", "volume", "create", "dir", name)
        data = f"{pools_daemon.dir}/storage-pools/dir/custom/default_{name}"
        tree.build(data, files=5)
        before = tree.describe(data)
        pools_daemon.command("storage", "volume", "move", f"dir/{name}", f"{pool}/{name}")
        assert left(f"custom/default_{name}") == before
        pools_daemon.command("delete", name)
        pools_daemon.command("storage", "volume", "delete", pool, name)
        pools_daemon.command("storage", "delete", pool)
    finally:
        subprocess.run(["umount", place], check=True)


def test_what_is_refused(pools_daemon: Daemon, source: str, pool: str) -> None:
    taken = unique("t")
    pools_daemon.command("init", "busybox", taken)
    post = {"name": "new", "source": {"type": "copy", "source": source}}
    for body, status in (
        ({**post, "source": {"type": "copy"}}, 400),
        ({**post, "source": {"type": "copy", "source": "none"}}, 404),
        ({**post, "source": {"type": "copy", "source": f"{source}/none"}}, 404),
        ({**post, "name": taken}, 409),
        ({**post, "name": "a_b"}, 400),
        ({**post, "config": {"limits.memory": "much"}}, 400),
        ({**post, "devices": {"root": {"type": "disk", "path": "/", "pool": "none"}}}, 404),
    ):
        with pytest.raises(ApiError) as error:
            pools_daemon.request("POST", "/1.0/instances", body)
        assert error.value.status == status, (body, error.value)
    assert "new" not in pools_daemon.instances()
    failed = pools_daemon.command("move", source, "--storage", pool, check=False)
    assert failed.stderr == f"Error: Instance '{source}' is in storage pool '{pool}' already\n"


def test_two_copies_at_once(pools_daemon: Daemon, source: str) -> None:
    names = [unique("c") for _ in range(4)]
    bodies = [{"name": name, "source": {"type": "copy", "source": source}} for name in names]
    operations = [pools_daemon._exchange("POST", "/1.0/instances", body, 60)["operation"] for body in bodies]
    for operation in operations:
        assert pools_daemon.request("GET", f"{operation}/wait")["err"] == ""
    assert set(names) <= set(pools_daemon.instances())


def test_the_daemon_dies_while_it_copies(pools_daemon: Daemon, source: str, pool: str) -> None:
    copy = unique("c")
    body = {"name": copy, "source": {"type": "copy", "source": source}}
    pools_daemon._exchange("POST", "/1.0/instances", body, 60)
    pools_daemon.signal(signal.SIGKILL)
    pools_daemon.start()
    volumes = os.listdir(f"{pools_daemon.dir}/storage-pools/{pool}/containers")
    assert (copy in volumes) == (copy in pools_daemon.instances())
    pools_daemon.command("copy", source, unique("c"))
