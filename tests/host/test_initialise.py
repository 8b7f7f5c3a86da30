"""Setting a server up: by itself, minimal, by preseed; whole or not at all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import ApiError, Daemon, unique


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        daemon.start()
        yield daemon
    finally:
        assert daemon.close() == []


def picture(daemon: Daemon) -> dict[str, Any]:
    """Return everything that a preseed can change."""
    assert daemon.netns
    return {
        "config": daemon.request("GET", "/1.0")["config"],
        "pools": daemon.request("GET", "/1.0/storage-pools?recursion=1"),
        "networks": [n for n in daemon.request("GET", "/1.0/networks?recursion=1") if n["managed"]],
        "profiles": daemon.request("GET", "/1.0/profiles?recursion=1"),
        "projects": [
            {k: v for k, v in project.items() if k != "used_by"}
            for project in daemon.request("GET", "/1.0/projects?recursion=1")
        ],
        "links": sorted(daemon.netns.links()),
    }


def init(daemon: Daemon, body: object) -> None:
    daemon.request("POST", "/1.0/pylxc/init", body)


def test_auto_makes_pool_bridge_and_profile_once(daemon: Daemon) -> None:
    init(daemon, {"auto": True})
    (pool,) = daemon.request("GET", "/1.0/storage-pools?recursion=1")
    assert (pool["name"], pool["driver"]) == ("default", "btrfs")
    assert pool["config"]["source"] == f"{daemon.dir}/disks/default.img"
    network = daemon.request("GET", "/1.0/networks/pylxcbr0")
    assert network["managed"]
    assert network["config"]["ipv4.address"].endswith("/24")
    assert network["config"]["ipv4.nat"] == "true"
    assert daemon.netns
    assert "pylxcbr0" in daemon.netns.links()
    profile = daemon.request("GET", "/1.0/profiles/default")
    assert profile["devices"] == {
        "root": {"type": "disk", "path": "/", "pool": "default"},
        "eth0": {"type": "nic", "name": "eth0", "network": "pylxcbr0"},
    }
    assert daemon.request("GET", "/1.0")["environment"]["storage"] == "btrfs"
    before = picture(daemon)
    init(daemon, {"auto": True})
    assert picture(daemon) == before


def test_minimal_makes_no_bridge(daemon: Daemon) -> None:
    init(daemon, {"minimal": True})
    assert [n for n in daemon.request("GET", "/1.0/networks?recursion=1") if n["managed"]] == []
    assert list(daemon.request("GET", "/1.0/profiles/default")["devices"]) == ["root"]


def test_the_first_launch_says_what_was_made(daemon: Daemon, busybox_files: list[str]) -> None:
    image = daemon.import_image("busybox", busybox_files)
    told = "Storage pool default is btrfs on a loop file: snapshots and copies take no time"
    assert told in daemon.command("launch", image, "c1").stdout.splitlines()
    assert told not in daemon.command("launch", image, "c2").stdout


def test_without_the_tools_it_is_a_directory(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.start(without="mkfs.btrfs")
    told = daemon.command("admin", "init", "--auto").stdout
    assert told.startswith("Storage pool default is a directory (dir), as mkfs.btrfs is missing (package btrfs-progs)")
    assert driver(daemon) == "dir"


def test_btrfs_that_fails_leaves_nothing(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.start(without="/dev/loop-control")
    told = daemon.command("admin", "init", "--minimal").stdout
    assert len(told.splitlines()) == 1
    assert "dir), as btrfs failed" in told
    assert driver(daemon) == "dir"
    assert list(Path(daemon.dir, "disks").iterdir()) == []
    assert daemon.leaks.loops() == []


@pytest.mark.parametrize(
    ("kind", "found", "told"),
    [
        ("btrfs", "btrfs", "is btrfs, as"),
        ("xfs", "dir", "has reflinks"),
        ("ext4", "dir", "wants 10GiB of free space"),
    ],
)
def test_the_file_system_of_the_host_decides(
    make_daemon: Callable[[str], Daemon], kind: str, found: str, told: str, tmp_path: Path, busybox_files: list[str]
) -> None:
    image, place = tmp_path / "disk.img", Path("/var/tmp", unique("pt"))
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    daemon = make_daemon(str(place))
    try:
        daemon.start()
        assert told in daemon.command("admin", "init", "--minimal").stdout
        assert driver(daemon) == found
        if found == "dir":
            return
        daemon.command("launch", daemon.import_image("busybox", busybox_files), "c1")
        daemon.stop()
        daemon.start()
        daemon.command("snapshot", "c1", "s0")
        daemon.command("delete", "--force", "c1")
        daemon.command("profile", "device", "remove", "default", "root")
        daemon.command("storage", "delete", "default")
        assert list(Path(daemon.dir, "storage-pools").iterdir()) == []
    finally:
        assert daemon.close() == []
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def driver(daemon: Daemon) -> str:
    name: str = daemon.request("GET", "/1.0/storage-pools/default")["driver"]
    return name


PRESEED: dict[str, Any] = {
    "config": {"user.note": "hello", "core.shutdown_timeout": 3},
    "projects": [{"name": "p1", "config": {"features.images": "false"}}],
    "storage_pools": [{"name": "tank", "driver": "dir", "description": "first"}],
    "networks": [{"name": "ptbr7", "type": "bridge", "config": {"ipv4.address": "10.97.3.1/24"}}],
    "profiles": [
        {"name": "default", "devices": {"root": {"type": "disk", "path": "/", "pool": "tank"}}},
        {"name": "big", "project": "p1", "config": {"limits.memory": "1GiB"}, "description": "large"},
    ],
}


def test_preseed_makes_and_then_changes(daemon: Daemon) -> None:
    init(daemon, {"preseed": PRESEED})
    assert daemon.request("GET", "/1.0")["config"] == {"user.note": "hello", "core.shutdown_timeout": "3"}
    assert daemon.request("GET", "/1.0/storage-pools/tank")["description"] == "first"
    assert daemon.request("GET", "/1.0/networks/ptbr7")["config"]["ipv4.address"] == "10.97.3.1/24"
    assert daemon.request("GET", "/1.0/profiles/big?project=p1")["config"] == {"limits.memory": "1GiB"}
    assert daemon.request("GET", "/1.0/profiles/default")["devices"]["root"]["pool"] == "tank"

    again = {
        "config": {"user.other": "x"},
        "profiles": [{"name": "big", "project": "p1", "config": {"limits.cpu": "2"}}],
        "storage_pools": [{"name": "tank", "driver": "dir", "description": "second"}],
    }
    init(daemon, {"preseed": again})
    assert daemon.request("GET", "/1.0")["config"]["user.note"] == "hello"
    big = daemon.request("GET", "/1.0/profiles/big?project=p1")
    assert big["config"] == {"limits.memory": "1GiB", "limits.cpu": "2"}
    assert big["description"] == "large"
    assert daemon.request("GET", "/1.0/storage-pools/tank")["description"] == "second"


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ({"name": "bad", "config": {"limits.nonsense": "1"}}, 400),
        ({"name": "", "config": {}}, 400),
        ({"name": "x", "project": "nowhere"}, 404),
    ],
)
def test_a_preseed_that_fails_at_its_end_changes_nothing(daemon: Daemon, last: dict[str, Any], status: int) -> None:
    init(daemon, {"minimal": True})
    before = picture(daemon)
    preseed = {**PRESEED, "profiles": [*PRESEED["profiles"], last]}
    with pytest.raises(ApiError) as caught:
        init(daemon, {"preseed": preseed})
    assert caught.value.status == status
    assert picture(daemon) == before


@pytest.mark.parametrize("body", [{}, {"auto": True, "minimal": True}, {"preseed": {"networks": {}}}, {"auto": "yes"}])
def test_a_senseless_request_is_refused(daemon: Daemon, body: object) -> None:
    with pytest.raises(ApiError) as caught:
        init(daemon, body)
    assert caught.value.status == 400


def test_the_preseed_of_another_driver_is_refused(daemon: Daemon) -> None:
    init(daemon, {"preseed": {"storage_pools": [{"name": "tank", "driver": "dir"}]}})
    with pytest.raises(ApiError) as caught:
        init(daemon, {"preseed": {"storage_pools": [{"name": "tank", "driver": "zfs"}]}})
    assert caught.value.status == 400
