"""Pools that cannot be used when the daemon starts: they are shown so, all else works, and they come back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import Clock
from tests.support.daemon import ApiError, Daemon
from tests.support.wait import until

SIZE = 256 << 20


class Place:
    """A pool's place, which can be taken away: a mounted file system, a block device, or a loop file of the daemon's.

    Args:
        name: the pool's.
        kind: one of KINDS.
        directory: an empty one.
    """

    KINDS = ("dir unmounted", "dir read-only", "btrfs device gone", "btrfs file missing")

    def __init__(self, name: str, kind: str, directory: Path, daemon: Daemon) -> None:
        self.driver, _, self._fault = kind.partition(" ")
        self._disk = directory / "disk.img"
        self._mount = directory / "mount"
        self._mount.mkdir()
        self._own = Path(daemon.dir, f"disks/{name}.img")
        self._pool = f"{daemon.dir}/storage-pools/{name}"
        self._device = ""
        self.source = ""
        if self._fault != "file missing":
            with self._disk.open("wb") as file:
                file.truncate(SIZE)
        if self.driver == "dir":
            run("mkfs.ext4", "-q", self._disk)
            self.source = f"{self._mount}/pool"
            self.give()
            os.mkdir(self.source)
        elif self._fault == "device gone":
            self.give()
            self.source = self._device
        self.config = {"source": self.source} if self.source else {"size": f"{SIZE}B"}

    def take(self) -> None:
        """Take it away; no daemon runs."""
        if self._fault == "unmounted":
            run("umount", self._mount)
            os.mkdir(self.source)  # as a host's administrator has it: the mount point may be there, empty
        elif self._fault == "read-only":
            run("mount", "-o", "remount,ro", self._mount)
        else:
            run("umount", self._pool)
            if self._fault == "device gone":
                run("losetup", "--detach", self._device)
            else:
                os.rename(self._own, f"{self._own}.away")

    def give(self) -> None:
        """Bring it (back)."""
        if self._fault == "unmounted":
            if os.path.isdir(self.source):
                os.rmdir(self.source)
            run("mount", "-o", "loop", self._disk, self._mount)
        elif self._fault == "read-only":
            is_there = os.path.ismount(self._mount)
            run("mount", *(("-o", "remount,rw") if is_there else ("-o", "loop", self._disk)), self._mount)
        elif self._fault == "device gone":
            self._device = run("losetup", "--find", "--show", self._disk)
        else:
            os.rename(f"{self._own}.away", self._own)

    def close(self) -> None:
        """Leave nothing of it."""
        if os.path.ismount(self._mount):
            run("umount", self._mount)
        if self._device in run("losetup", "--list", "--noheadings", "--output", "NAME").split():
            run("losetup", "--detach", self._device)


def run(*argv: object) -> str:
    return subprocess.run([str(arg) for arg in argv], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def places(tmp_path: Path, make_daemon: Callable[[], Daemon]) -> Iterator[tuple[Daemon, dict[str, Place]]]:
    daemon, made = make_daemon(), {}
    for kind in Place.KINDS:
        name = kind.replace(" ", "-")
        (tmp_path / name).mkdir()
        made[name] = Place(name, kind, tmp_path / name, daemon)
    yield daemon, made
    daemon.close()
    for place in made.values():
        place.close()


def root(pool: str) -> dict[str, dict[str, str]]:
    return {"root": {"type": "disk", "path": "/", "pool": pool}}


def test_away_and_back(places: tuple[Daemon, dict[str, Place]], busybox_files: list[str]) -> None:
    daemon, away = places
    clock = Clock(daemon)
    daemon.start()
    pools = [{"name": name, "driver": place.driver, "config": place.config} for name, place in away.items()]
    preseed = {
        "storage_pools": [*pools, {"name": "q", "driver": "dir"}],
        "profiles": [{"name": "default", "devices": root("q")}],
    }
    daemon.command("admin", "init", "--preseed", input=json.dumps(preseed))
    daemon.import_image("busybox", busybox_files)
    daemon.command("launch", "busybox", "other")
    daemon.command("init", "busybox", "still")
    for pool in away:
        for name, config in (("there", {}), ("auto", {"boot.autostart": "true"}), ("half", {})):
            source = {"type": "image", "alias": "busybox"}
            body = {"name": f"{name}-{pool}", "source": source, "devices": root(pool), "config": config}
            daemon.request("POST", "/1.0/instances", body)
        daemon.request("POST", f"/1.0/instances/there-{pool}/snapshots", {"name": "s0"})
    daemon.stop()
    with daemon.database() as database:  # as a daemon leaves it that is killed
        database.execute("UPDATE instances SET state = 'deleting' WHERE name LIKE 'half-%'")
        database.execute("UPDATE instances SET restoring = 's0' WHERE name LIKE 'there-%'")
    for place in away.values():
        place.take()
    daemon.start()

    found = {pool["name"]: pool["status"] for pool in daemon.request("GET", "/1.0/storage-pools?recursion=1")}
    assert found == {**dict.fromkeys(away, "Unavailable"), "q": "Created"}
    shown = {f"{name}-{pool}": "Error" for name in ("there", "auto") for pool in away}
    shown |= {"other": "Running", "still": "Stopped"}
    assert daemon.instances() == shown
    for pool in away:
        refuses_all(daemon, pool)
    assert daemon.instances() == shown
    failed = daemon.command("delete", f"there-{pool}", check=False)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    daemon.command("exec", "other", "--", "true")
    daemon.command("launch", "busybox", "more")
    daemon.command("delete", "--force", "more")

    for place in away.values():
        place.give()
    clock.advance(minutes=10)
    running = {f"auto-{pool}" for pool in away}
    until(lambda: {n for n, s in daemon.instances().items() if s == "Running"} >= running, "what is to run runs")
    for pool in away:
        assert sorted(os.listdir(f"{daemon.dir}/storage-pools/{pool}/containers")) == [f"auto-{pool}", f"there-{pool}"]
        until(partial(starts, daemon, f"there-{pool}"), "its start")  # what was cut off is being cleaned up
    daemon.delete_all()
    for pool in away:
        daemon.command("storage", "delete", pool)


def starts(daemon: Daemon, name: str) -> bool:
    return daemon.command("start", name, check=False).returncode == 0


def refuses_all(daemon: Daemon, pool: str) -> None:
    """Try everything with a pool that is away."""
    there = f"/1.0/instances/there-{pool}"
    for method, path, body in (
        ("PUT", f"{there}/state", {"action": "start"}),
        ("DELETE", there, None),
        ("POST", f"{there}/snapshots", {"name": "s1"}),
        ("DELETE", f"{there}/snapshots/s0", None),
        ("PUT", there, {"restore": "s0"}),
        ("POST", f"{there}/snapshots/s0", {"name": "renamed"}),
        ("POST", there, {"name": "renamed"}),
        ("POST", there, {"name": f"there-{pool}", "pool": "q", "migration": True}),
        ("POST", "/1.0/instances/still", {"name": "still", "pool": pool, "migration": True}),
        ("POST", f"{there}/backups", {}),
        ("POST", "/1.0/images", {"source": {"type": "instance", "name": f"there-{pool}"}}),
        ("GET", f"{there}/files?path=/etc/hostname", None),
        ("POST", "/1.0/instances", copy_of(f"there-{pool}", "q")),
        ("POST", "/1.0/instances", copy_of("other", pool)),
        ("POST", "/1.0/instances", {**copy_of("", pool), "source": {"type": "image", "alias": "busybox"}}),
    ):
        with pytest.raises(ApiError, match=f"torage pool '{pool}' is unavailable: ") as refused:
            daemon.request(method, path, body)
        assert "\n" not in refused.value.text


def copy_of(name: str, pool: str) -> dict[str, Any]:
    return {"name": "copied", "source": {"type": "copy", "source": name}, "devices": root(pool)}
