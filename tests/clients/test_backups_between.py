"""Backups that LXD 5.0.2 has made are imported here, and ours there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.lxd import Lxd
from tests.support.daemon import POOL_ONLY, Daemon, unique


@pytest.fixture(scope="module")
def lxd(need: Callable[..., None], busybox_files: list[str]) -> Iterator[Lxd]:
    """LXD with a pool and the image busybox."""
    need("lxd", "lxc")
    lxd = Lxd()
    try:
        lxd.run("storage", "create", "default", "dir")
        lxd.run("storage", "create", "fast", "btrfs", "size=1GiB")
        lxd.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default")
        lxd.run("image", "import", *busybox_files, "--alias", "busybox")
        yield lxd
    finally:
        lxd.close()


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    module_daemon.command("storage", "create", "fast", "btrfs", "size=1GiB")
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


def prepare(run: Callable[..., object], name: str, note: Path, pool: str = "default") -> None:
    """Make an instance with a snapshot."""
    run("init", "busybox", name, "-c", "user.mark=yes", "-c", "limits.memory=64MiB", "-s", pool)
    for text in ("first\n", "second\n"):
        note.write_text(text)
        run("file", "push", str(note), f"{name}/root/note", "--mode", "0640")
        if text == "first\n":
            run("snapshot", name, "s0")


def test_lxds_backup_here(lxd: Lxd, host: Daemon, tmp_path: Path) -> None:
    name = unique("l")
    prepare(lxd.run, name, tmp_path / "note")
    # Now that it runs its files belong to shifted ids on LXD's disk; those of the snapshot do not.
    lxd.run("start", name)
    lxd.run("exec", name, "--", "chown", "5:6", "/bin/busybox")
    lxd.run("stop", "--force", name)
    lxd.run("export", name, f"{tmp_path}/backup.tar.gz")
    host.command("import", f"{tmp_path}/backup.tar.gz")
    made = host.request("GET", f"/1.0/instances/{name}?recursion=1")
    assert (made["config"]["user.mark"], made["config"]["limits.memory"]) == ("yes", "64MiB")
    assert [s["name"] for s in made["snapshots"]] == ["s0"]
    host.command("start", name)
    look = ("exec", name, "--", "sh", "-c", "stat -c '%U %a' /root/note; cat /root/note")
    assert host.command(*look).stdout == "root 640\nsecond\n"
    assert host.command("exec", name, "--", "stat", "-c", "%u:%g", "/bin/busybox", "/").stdout == "5:6\n0:0\n"
    host.command("restore", name, "s0")
    assert host.command(*look).stdout == "root 640\nfirst\n"
    assert host.command("exec", name, "--", "stat", "-c", "%u:%g", "/bin/busybox", "/").stdout == "0:0\n0:0\n"


def test_our_backup_there(lxd: Lxd, host: Daemon, tmp_path: Path) -> None:
    name = unique("p")
    prepare(host.command, name, tmp_path / "note")
    host.lxc("export", name, f"{tmp_path}/backup.tar.gz")  # with LXD's own client
    lxd.run("import", f"{tmp_path}/backup.tar.gz")
    lxd.run("start", name)
    assert lxd.run("exec", name, "--", "cat", "/root/note") == "second\n"
    assert 'user.mark: "yes"' in lxd.run("config", "show", name)
    lxd.run("restore", name, "s0")
    assert lxd.run("exec", name, "--", "cat", "/root/note") == "first\n"
    lxd.run("delete", "--force", name)


def test_lxc_brings_a_backup_back(host: Daemon, tmp_path: Path) -> None:
    name = unique("p")
    prepare(host.command, name, tmp_path / "note")
    host.lxc("export", name, f"{tmp_path}/backup.tar.xz", "--compression", "xz", "--instance-only")
    host.lxc("delete", name)
    host.lxc("import", f"{tmp_path}/backup.tar.xz")
    made = host.request("GET", f"/1.0/instances/{name}?recursion=1")
    assert (made["config"]["user.mark"], made["snapshots"]) == ("yes", [])


def write_volume(run: Callable[..., object], volume: str, name: str) -> None:
    """Make a volume with a snapshot, which a running instance has written to."""
    run("storage", "volume", "create", "default", volume, "user.mark=yes")
    run("init", "busybox", name)
    run("storage", "volume", "attach", "default", volume, name, "/data")
    run("start", name)
    for text in ("first", "second"):
        run("exec", name, "--", "sh", "-c", f"echo {text} > /data/note; chown 5:6 /data/note; chmod 2770 /data")
        if text == "first":
            run("storage", "volume", "snapshot", "default", volume, "s0")


LOOK = ("sh", "-c", "stat -c '%u:%g %a' /data /data/note; cat /data/note")


def test_lxds_volume_here(lxd: Lxd, host: Daemon, tmp_path: Path) -> None:
    volume, name = unique("v"), unique("c")
    write_volume(lxd.run, volume, name)
    seen = lxd.run("exec", name, "--", *LOOK)
    lxd.run("storage", "volume", "export", "default", volume, f"{tmp_path}/backup.tar.gz")
    lxd.run("delete", "--force", name)
    host.command("storage", "volume", "import", "default", f"{tmp_path}/backup.tar.gz")
    host.command("init", "busybox", name)
    host.command("storage", "volume", "attach", "default", volume, name, "/data")
    host.command("start", name)
    assert host.command("exec", name, "--", *LOOK).stdout == seen
    host.command("stop", "--force", name)
    host.command("storage", "volume", "restore", "default", volume, "s0")
    host.command("start", name)
    assert host.command("exec", name, "--", *LOOK).stdout == seen.replace("second", "first")
    assert host.command("storage", "volume", "get", "default", volume, "user.mark").stdout == "yes\n"


def test_our_volume_there(lxd: Lxd, host: Daemon, tmp_path: Path) -> None:
    volume, name = unique("v"), unique("c")
    write_volume(host.command, volume, name)
    seen = host.command("exec", name, "--", *LOOK).stdout
    host.lxc("storage", "volume", "export", "default", volume, f"{tmp_path}/backup.tar.gz")
    lxd.run("storage", "volume", "import", "default", f"{tmp_path}/backup.tar.gz")
    lxd.run("storage", "volume", "restore", "default", volume, "s0")
    lxd.run("init", "busybox", name)
    lxd.run("storage", "volume", "attach", "default", volume, name, "/data")
    lxd.run("start", name)
    assert lxd.run("exec", name, "--", *LOOK) == seen.replace("second", "first")
    lxd.run("delete", "--force", name)


def test_lxc_brings_a_volume_back(host: Daemon, tmp_path: Path) -> None:
    volume = unique("v")
    host.command("storage", "volume", "create", "default", volume, "user.mark=yes")
    host.command("storage", "volume", "snapshot", "default", volume, "s0")
    words = ("storage", "volume", "export", "default", volume, f"{tmp_path}/backup.tar.xz")
    host.lxc(*words, "--compression", "xz", "--volume-only")
    host.lxc("storage", "volume", "import", "default", f"{tmp_path}/backup.tar.xz", f"{volume}-2")
    made = host.request("GET", f"/1.0/storage-pools/default/volumes/custom/{volume}-2")
    assert made["config"]["user.mark"] == "yes"
    assert host.request("GET", f"/1.0/storage-pools/default/volumes/custom/{volume}/backups") == []


def test_lxds_optimized_backups_here(lxd: Lxd, host: Daemon, tmp_path: Path) -> None:
    name = unique("l")
    prepare(lxd.run, name, tmp_path / "note", "fast")
    lxd.run("start", name)
    lxd.run("exec", name, "--", "chown", "5:6", "/bin/busybox")
    lxd.run("stop", "--force", name)
    lxd.run("snapshot", name, "s1")
    lxd.run("export", name, f"{tmp_path}/backup", "--optimized-storage")
    host.command("import", f"{tmp_path}/backup")
    assert host.request("GET", f"/1.0/instances/{name}")["expanded_devices"]["root"]["pool"] == "fast"
    host.command("start", name)
    look = ("exec", name, "--", "sh", "-c", "stat -c '%u:%g %a' /root/note /bin/busybox; cat /root/note")
    assert host.command(*look).stdout == "0:0 640\n5:6 755\nsecond\n"
    host.command("restore", name, "s0")
    assert host.command(*look).stdout == "0:0 640\n0:0 755\nfirst\n"
    lxd.run("storage", "volume", "create", "fast", name)
    lxd.run("storage", "volume", "snapshot", "fast", name, "s0")
    lxd.run("storage", "volume", "export", "fast", name, f"{tmp_path}/volume", "--optimized-storage")
    host.command("storage", "volume", "import", "fast", f"{tmp_path}/volume")
    host.command("storage", "volume", "show", "fast", f"{name}/s0")


def test_our_optimized_backups_there(lxd: Lxd, host: Daemon, tmp_path: Path) -> None:
    name = unique("p")
    prepare(host.command, name, tmp_path / "note", "fast")
    host.lxc("export", name, f"{tmp_path}/backup", "--optimized-storage")
    lxd.run("import", f"{tmp_path}/backup")
    lxd.run("start", name)
    assert lxd.run("exec", name, "--", "cat", "/root/note") == "second\n"
    lxd.run("restore", name, "s0")
    assert lxd.run("exec", name, "--", "cat", "/root/note") == "first\n"
    lxd.run("delete", "--force", name)
    host.command("storage", "volume", "create", "fast", name)
    host.command("storage", "volume", "snapshot", "fast", name, "s0")
    host.lxc("storage", "volume", "export", "fast", name, f"{tmp_path}/volume", "--optimized-storage")
    lxd.run("storage", "volume", "import", "fast", f"{tmp_path}/volume")
    lxd.run("storage", "volume", "restore", "fast", name, "s0")
