"""The size of root disks on a pool that can hold them to it, seen from inside; and on one that cannot."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ApiError, Daemon, unique

MIB = 1 << 20


@pytest.fixture
def guest(pools_daemon: Daemon) -> Iterator[str]:
    """Return a running instance whose root disk may take 16 MiB."""
    name = unique("q")
    pools_daemon.command("launch", "busybox", name, "--storage", "btrfs", "-d", "root,size=16MiB")
    yield name
    pools_daemon.command("delete", "--force", name)


def write(daemon: Daemon, name: str, mebibytes: int) -> str:
    """Write random bytes to /big in a guest; return what went wrong."""
    script = f"dd if=/dev/zero of=/big bs=1M count={mebibytes} conv=fsync && rm /big"
    done = daemon.command("exec", name, "--", "sh", "-c", script, check=False)
    daemon.command("exec", name, "--", "rm", "-f", "/big")
    return "" if done.returncode == 0 else done.stderr


def root_state(daemon: Daemon, name: str) -> dict[str, int]:
    state: dict[str, int] = daemon.request("GET", f"/1.0/instances/{name}/state")["disk"]["root"]
    return state


def set_size(daemon: Daemon, name: str, size: str) -> str:
    """Set the size of a root disk; return what `pylxc` said when it was refused."""
    done = daemon.command("config", "device", "set", name, "root", f"size={size}", check=False)
    assert len(done.stderr.splitlines()) == (1 if done.returncode else 0), done.stderr
    return done.stderr


def size_in_config(daemon: Daemon, name: str) -> str:
    size: str = daemon.request("GET", f"/1.0/instances/{name}")["expanded_devices"]["root"].get("size", "")
    return size


def test_a_guest_meets_its_limit_and_it_changes_live(pools_daemon: Daemon, guest: str) -> None:
    assert "quota exceeded" in write(pools_daemon, guest, 24)
    assert set_size(pools_daemon, guest, "32MiB") == ""
    assert write(pools_daemon, guest, 24) == ""
    assert root_state(pools_daemon, guest)["total"] == 32 * MIB
    assert 0 < root_state(pools_daemon, guest)["usage"] <= 32 * MIB
    assert "Disk usage:\n    root:" in pools_daemon.command("info", guest).stdout
    assert set_size(pools_daemon, guest, "") == ""
    assert write(pools_daemon, guest, 40) == ""
    assert root_state(pools_daemon, guest)["total"] == 0


def test_a_size_below_what_is_used_is_refused(pools_daemon: Daemon, guest: str) -> None:
    pools_daemon.command("exec", guest, "--", "dd", "if=/dev/zero", "of=/kept", "bs=1M", "count=8", "conv=fsync")
    assert "in use" in set_size(pools_daemon, guest, "4MiB")
    assert size_in_config(pools_daemon, guest) == "16MiB"
    assert root_state(pools_daemon, guest)["total"] == 16 * MIB
    copy = unique("q")
    with pytest.raises(AssertionError, match="in use"):
        pools_daemon.command("copy", guest, copy, "-d", "root,size=4MiB")
    assert copy not in pools_daemon.instances()
    volumes = pools_daemon.request("GET", "/1.0/storage-pools/btrfs/volumes/container")
    assert [url for url in volumes if copy in url] == []


def test_snapshots_and_copies_have_their_own(pools_daemon: Daemon, guest: str) -> None:
    pools_daemon.command("snapshot", guest, "s0")
    pools_daemon.command("stop", "--force", guest)
    assert set_size(pools_daemon, guest, "24MiB") == ""
    pools_daemon.command("restore", guest, "s0")  # which was taken with 16MiB
    pools_daemon.command("start", guest)
    assert size_in_config(pools_daemon, guest) == "16MiB"
    assert "quota exceeded" in write(pools_daemon, guest, 20)
    copy, free = unique("q"), unique("q")
    pools_daemon.command("copy", guest, copy)
    pools_daemon.command("copy", f"{guest}/s0", free, "-d", "root,size=")
    for name in (copy, free):
        pools_daemon.command("start", name)
    assert "quota exceeded" in write(pools_daemon, copy, 20)
    assert write(pools_daemon, free, 20) == ""
    pools_daemon.command("stop", "--force", copy)
    pools_daemon.command("copy", guest, copy, "--refresh")
    pools_daemon.command("start", copy)
    assert "quota exceeded" in write(pools_daemon, copy, 20)


def test_import_and_move_keep_it(pools_daemon: Daemon, guest: str, tmp_path: Path) -> None:
    pools_daemon.command("stop", "--force", guest)
    pools_daemon.command("export", guest, str(tmp_path / "q.tar"), "--compression", "none")
    back = unique("q")
    pools_daemon.command("import", str(tmp_path / "q.tar"), back)
    pools_daemon.command("start", back)
    assert "quota exceeded" in write(pools_daemon, back, 20)
    for argv in (("move", guest, "--storage", "dir"), ("import", str(tmp_path / "q.tar"), "other", "--storage", "dir")):
        done = pools_daemon.command(*argv, check=False)
        assert done.returncode != 0
        assert "cannot limit the size" in done.stderr
    assert "other" not in pools_daemon.instances()
    pools_daemon.command("start", guest)
    assert "quota exceeded" in write(pools_daemon, guest, 20)


def test_a_profile_changes_it_live(pools_daemon: Daemon) -> None:
    profile, name = unique("p"), unique("q")
    pools_daemon.command("profile", "create", profile)
    pools_daemon.command("profile", "device", "add", profile, "root", "disk", "path=/", "pool=btrfs", "size=32MiB")
    pools_daemon.command("launch", "busybox", name, "--profile", profile)
    assert write(pools_daemon, name, 24) == ""
    pools_daemon.command("profile", "device", "set", profile, "root", "size=16MiB")
    assert "quota exceeded" in write(pools_daemon, name, 24)
    pools_daemon.command("exec", name, "--", "dd", "if=/dev/zero", "of=/kept", "bs=1M", "count=8", "conv=fsync")
    done = pools_daemon.command("profile", "device", "set", profile, "root", "size=4MiB", check=False)
    assert name in done.stderr
    assert "in use" in done.stderr
    devices = pools_daemon.request("GET", f"/1.0/profiles/{profile}")["devices"]
    assert devices["root"]["size"] == "16MiB"
    pools_daemon.command("delete", "--force", name)
    pools_daemon.command("profile", "delete", profile)


def test_the_pool_has_the_default(pools_daemon: Daemon) -> None:
    pools_daemon.command("storage", "set", "btrfs", "volume.size=16MiB")
    name = unique("q")
    pools_daemon.command("launch", "busybox", name, "--storage", "btrfs")
    pools_daemon.command("storage", "unset", "btrfs", "volume.size")
    assert "quota exceeded" in write(pools_daemon, name, 20)
    pools_daemon.command("restart", "--force", name)
    assert "quota exceeded" in write(pools_daemon, name, 20)
    assert set_size(pools_daemon, name, "0") == ""
    assert write(pools_daemon, name, 20) == ""
    pools_daemon.command("delete", "--force", name)


def test_a_start_brings_it_in_line(pools_daemon: Daemon, guest: str) -> None:
    pools_daemon.command("stop", "--force", guest)
    path = f"{pools_daemon.dir}/storage-pools/btrfs/containers/{guest}"
    subprocess.run(["btrfs", "qgroup", "limit", "none", path], check=True)
    pools_daemon.command("start", guest)
    assert "quota exceeded" in write(pools_daemon, guest, 20)
    pools_daemon.signal(signal.SIGKILL)
    pools_daemon.start()
    assert "quota exceeded" in write(pools_daemon, guest, 20)


def test_a_start_warns_of_what_cannot_be(pools_daemon: Daemon, guest: str) -> None:
    def warnings() -> list[tuple[str, str]]:
        found = pools_daemon.request("GET", "/1.0/warnings?recursion=1")
        of_it = [each for each in found if each["entity_url"] == f"/1.0/instances/{guest}"]
        return [(each["type"], each["status"]) for each in of_it]

    path = f"{pools_daemon.dir}/storage-pools/btrfs/containers/{guest}"
    subprocess.run(["btrfs", "qgroup", "limit", "none", path], check=True)
    pools_daemon.command("exec", guest, "--", "dd", "if=/dev/zero", "of=/kept", "bs=1M", "count=24", "conv=fsync")
    pools_daemon.command("restart", "--force", guest)
    assert warnings() == [("Size cannot be applied", "new")]
    pools_daemon.command("exec", guest, "--", "rm", "/kept")
    subprocess.run(["sync", "-f", path], check=True)
    pools_daemon.command("restart", "--force", guest)
    assert warnings() == [("Size cannot be applied", "resolved")]
    assert "quota exceeded" in write(pools_daemon, guest, 20)


def test_where_it_cannot_be_it_is_refused(pools_daemon: Daemon) -> None:
    """With one line that says what to do, and nothing made."""
    for argv in (
        ("init", "busybox", "refused", "-d", "root,size=1GiB"),
        ("profile", "device", "set", "default", "root", "size=1GiB"),
        ("storage", "set", "dir", "volume.size=1GiB"),
        ("storage", "create", "refused", "dir", "volume.size=1GiB"),
    ):
        done = pools_daemon.command(*argv, check=False)
        assert done.returncode != 0, argv
        last = done.stderr.splitlines()[-1]
        assert "cannot limit the size of volumes" in last
        assert "btrfs" in last
    assert "refused" not in pools_daemon.instances()
    assert "refused" not in pools_daemon.command("storage", "list", "-f", "csv").stdout
    assert "size" not in pools_daemon.request("GET", "/1.0/profiles/default")["devices"]["root"]
    body = {"devices": {"d": {"type": "disk", "path": "/mnt", "source": "/tmp", "size": "1GiB"}}}
    with pytest.raises(ApiError, match="Only the root disk") as caught:
        pools_daemon.request("PUT", "/1.0/profiles/default", body)
    assert caught.value.status == 400


def test_lxc_sets_it_too(pools_daemon: Daemon, guest: str) -> None:
    pools_daemon.lxc("config", "device", "set", guest, "root", "size", "32MiB")
    assert write(pools_daemon, guest, 24) == ""
    assert json.loads(pools_daemon.lxc("query", f"/1.0/instances/{guest}/state").stdout)["disk"]["root"]["usage"] > 0
