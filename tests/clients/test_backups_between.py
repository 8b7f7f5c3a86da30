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
        lxd.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default")
        lxd.run("image", "import", *busybox_files, "--alias", "busybox")
        yield lxd
    finally:
        lxd.close()


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


def prepare(run: Callable[..., object], name: str, note: Path) -> None:
    """Make an instance with a snapshot."""
    run("init", "busybox", name, "-c", "user.mark=yes", "-c", "limits.memory=64MiB")
    for text in ("first\n", "second\n"):
        note.write_text(text)
        run("file", "push", str(note), f"{name}/root/note", "--mode", "0640")
        if text == "first\n":
            run("snapshot", name, "s0")


def test_lxds_backup_here(lxd: Lxd, host: Daemon, tmp_path: Path) -> None:
    name = unique("l")
    prepare(lxd.run, name, tmp_path / "note")
    lxd.run("export", name, f"{tmp_path}/backup.tar.gz")
    host.command("import", f"{tmp_path}/backup.tar.gz")
    made = host.request("GET", f"/1.0/instances/{name}?recursion=1")
    assert (made["config"]["user.mark"], made["config"]["limits.memory"]) == ("yes", "64MiB")
    assert [s["name"] for s in made["snapshots"]] == ["s0"]
    host.command("start", name)
    look = ("exec", name, "--", "sh", "-c", "stat -c '%U %a' /root/note; cat /root/note")
    assert host.command(*look).stdout == "root 640\nsecond\n"
    host.command("restore", name, "s0")
    assert host.command(*look).stdout == "root 640\nfirst\n"


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
