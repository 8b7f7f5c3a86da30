"""Storage pools by REST, `pylxc` and `lxc`: what of them can change, and what that does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ApiError, Daemon, unique

MIB = 1 << 20


@pytest.fixture(scope="module")
def pool(module_daemon: Daemon) -> Iterator[str]:
    """Return a btrfs pool on a loop file of 256 MiB at first, for the tests of this module in turn."""
    name = unique("p")
    module_daemon.command("storage", "create", name, "btrfs", "size=256MiB")
    yield name
    module_daemon.command("storage", "delete", name)


def total(daemon: Daemon, pool: str) -> int:
    space: int = daemon.request("GET", f"/1.0/storage-pools/{pool}/resources")["space"]["total"]
    return space


def config(daemon: Daemon, pool: str) -> dict[str, str]:
    found: dict[str, str] = daemon.request("GET", f"/1.0/storage-pools/{pool}")["config"]
    return found


def refused(daemon: Daemon, *argv: str) -> str:
    done = daemon.command(*argv, check=False)
    assert done.returncode != 0, argv
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_loop_pool_grows_while_it_is_used(pools_daemon: Daemon, pool: str) -> None:
    daemon, name = pools_daemon, unique("g")
    daemon.command("launch", "busybox", name, "--storage", pool)
    write = ("exec", name, "--", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=300", "conv=fsync")
    assert "No space left" in daemon.command(*write, check=False).stderr
    daemon.command("storage", "set", pool, "size=512MiB")
    assert total(daemon, pool) == 512 * MIB
    assert config(daemon, pool)["size"] == "512MiB"
    daemon.command(*write)
    daemon.stop()
    daemon.start()
    assert total(daemon, pool) == 512 * MIB
    daemon.command("delete", "--force", name)


def test_it_does_not_shrink(daemon: Daemon, pool: str) -> None:
    before = config(daemon, pool)["size"], total(daemon, pool)
    for size in ("64MiB", "0"):
        assert "cannot be made smaller" in refused(daemon, "storage", "set", pool, f"size={size}")
    daemon.command("storage", "unset", pool, "size")
    assert (config(daemon, pool)["size"], total(daemon, pool)) == before
    assert "Invalid" in refused(daemon, "storage", "set", pool, "size=much")


def test_mount_options_act_at_once(daemon: Daemon, pool: str) -> None:
    def options() -> str:
        argv = ["findmnt", "-n", "-o", "OPTIONS", f"{daemon.dir}/storage-pools/{pool}"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    assert "compress" not in options()
    daemon.command("storage", "set", pool, "btrfs.mount_options=user_subvol_rm_allowed,compress=zstd:3")
    assert "compress=zstd:3" in options()
    message = refused(daemon, "storage", "set", pool, "btrfs.mount_options=nonsense")
    assert "nonsense" in message
    assert "compress=zstd:3" in config(daemon, pool)["btrfs.mount_options"]


def test_keys_that_cannot_be(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    name = unique("p")
    daemon.command("storage", "create", name, "dir", f"source={tmp_path}/source")
    before = daemon.request("GET", f"/1.0/storage-pools/{name}")
    for key in ("size=1GiB", "btrfs.mount_options=compress", "nonsense=1", "source=/elsewhere"):
        refused(daemon, "storage", "set", name, key)
    assert daemon.request("GET", f"/1.0/storage-pools/{name}") == before
    daemon.command("storage", "set", name, "rsync.bwlimit=10MB")
    assert config(daemon, name)["rsync.bwlimit"] == "10MB"
    daemon.command("storage", "delete", name)


def test_a_change_of_what_has_changed_is_refused(daemon: Daemon, pool: str) -> None:
    path, size = f"/1.0/storage-pools/{pool}", config(daemon, pool)["size"]
    curl = ["curl", "-s", "--unix-socket", f"{daemon.dir}/unix.socket", f"http://x{path}"]
    headers = subprocess.run([*curl, "-D-", "-o/dev/null"], check=True, capture_output=True, text=True).stdout
    tag = next(line.split(": ")[1] for line in headers.splitlines() if line.lower().startswith("etag"))

    def put(body: object) -> int:
        argv = [*curl, "-X", "PUT", "-H", f"If-Match: {tag}", "-d", json.dumps(body)]
        return int(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["error_code"])

    assert put({"config": {"user.note": "first"}, "description": "mine"}) == 0
    assert put({"config": {"user.note": "second"}}) == 412
    found = daemon.request("GET", path)
    assert (found["config"]["user.note"], found["description"]) == ("first", "mine")
    assert found["config"]["size"] == size


def test_who_uses_a_pool(pools_daemon: Daemon, pool: str) -> None:
    daemon, name, profile = pools_daemon, unique("u"), unique("u")
    daemon.command("init", "busybox", name, "--storage", pool)
    daemon.command("profile", "create", profile)
    daemon.command("profile", "device", "add", profile, "root", "disk", "path=/", f"pool={pool}")
    users = daemon.request("GET", f"/1.0/storage-pools/{pool}")["used_by"]
    image = daemon.request("GET", "/1.0/images/aliases/busybox")["target"]
    assert users == sorted([f"/1.0/images/{image}", f"/1.0/instances/{name}", f"/1.0/profiles/{profile}"])
    shown = daemon.command("storage", "info", pool).stdout
    assert "space used" in shown
    assert name in shown
    assert f"| {pool}" in (listed := daemon.lxc("storage", "list").stdout)
    assert next(line.split("|")[-3].strip() for line in listed.splitlines() if pool in line) == "3"
    for delete in (daemon.command, daemon.lxc):
        assert "in use" in delete("storage", "delete", pool, check=False).stderr
    daemon.command("delete", name)
    assert "in use" in refused(daemon, "storage", "delete", pool)
    daemon.command("profile", "delete", profile)


def test_lxc_changes_a_pool(daemon: Daemon, pool: str) -> None:
    daemon.command("storage", "set", pool, "user.note=y")
    daemon.request("PATCH", f"/1.0/storage-pools/{pool}", {"description": "mine"})
    daemon.lxc("storage", "set", pool, "size", "576MiB")
    assert total(daemon, pool) == 576 * MIB
    daemon.lxc("storage", "set", pool, "user.note", "x")
    daemon.lxc("storage", "unset", pool, "user.note")
    shown = daemon.lxc("storage", "show", pool).stdout
    daemon.lxc("storage", "edit", pool, input=shown.replace("description: mine", "description: edited"))
    assert daemon.request("GET", f"/1.0/storage-pools/{pool}")["description"] == "edited"
    assert "total space: 576.00MiB" in daemon.lxc("storage", "info", pool).stdout
    assert "smaller" in daemon.lxc("storage", "set", pool, "size", "1MiB", check=False).stderr
    with pytest.raises(ApiError):
        daemon.request("PATCH", f"/1.0/storage-pools/{pool}", {"config": {"size": "1MiB"}})
