"""Custom volumes by Debian's `lxc`."""

from __future__ import annotations

import pytest
import yaml

from tests.clients.conftest import Lxc
from tests.support.daemon import Daemon, unique

EXPIRES = "2100-01-02T03:04:05Z"


@pytest.fixture(scope="module")
def pool(lxc: Lxc, guest: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a pool beside that of the guest."""
    del guest  # the first one makes the default pool
    name = unique("pool")
    lxc("storage", "create", name, "dir", f"source={tmp_path_factory.mktemp('pool')}")
    return name


@pytest.fixture
def volume(lxc: Lxc, guest: str) -> str:
    """Return a volume in the guest's pool."""
    del guest
    name = unique("v")
    done = lxc("storage", "volume", "create", "default", name, "user.mark=yes")
    assert done.stdout == f"Storage volume {name} created\n"
    return name


def rows(lxc: Lxc, pool: str, *words: str) -> list[str]:
    return str(lxc("storage", "volume", "list", pool, "-f", "csv", *words).stdout).splitlines()


def refused(lxc: Lxc, *words: str) -> str:
    done = lxc("storage", "volume", *words, check=False)
    assert done.returncode == 1
    return str(done.stderr)


def test_create_show_and_change(lxc: Lxc, volume: str) -> None:
    found = yaml.safe_load(lxc("storage", "volume", "show", "default", volume).stdout)
    assert (found["name"], found["type"], found["content_type"]) == (volume, "custom", "filesystem")
    assert (found["config"], found["used_by"]) == ({"user.mark": "yes"}, [])
    lxc("storage", "volume", "set", "default", volume, "user.a=1", "user.b=2")
    assert lxc("storage", "volume", "get", "default", volume, "user.b").stdout == "2\n"
    lxc("storage", "volume", "unset", "default", volume, "user.mark")
    lxc("storage", "volume", "edit", "default", volume, input="description: mine\nconfig:\n  user.c: '3'\n")
    found = yaml.safe_load(lxc("storage", "volume", "show", "default", volume).stdout)
    assert (found["description"], found["config"]) == ("mine", {"user.c": "3"})
    assert "already exists" in refused(lxc, "create", "default", volume)
    assert rows(lxc, "default", "-c", "tndcu", f"name={volume}") == [f"custom,{volume},mine,filesystem,0"]
    assert f"default,custom,{volume},mine,filesystem,0" in rows(lxc, "default", "--all-projects")
    renamed = unique("v")
    done = lxc("storage", "volume", "rename", "default", volume, renamed)
    assert done.stdout == f'Renamed storage volume from "{volume}" to "{renamed}"\n'
    assert lxc("storage", "volume", "delete", "default", renamed).stdout == f"Storage volume {renamed} deleted\n"
    assert rows(lxc, "default", f"name={renamed}") == []


def test_attach_and_detach(lxc: Lxc, guest: str, volume: str) -> None:
    lxc("storage", "volume", "attach", "default", volume, guest, "/data")
    lxc("storage", "volume", "attach", "default", volume, guest, "again", "/again")
    lxc("exec", guest, "--", "sh", "-c", "echo hello > /data/file")
    assert lxc("exec", guest, "--", "cat", "/again/file").stdout == "hello\n"
    assert yaml.safe_load(lxc("storage", "volume", "show", "default", volume).stdout)["used_by"] == [
        f"/1.0/instances/{guest}"
    ]
    assert "still in use" in refused(lxc, "delete", "default", volume)
    assert "in use by running instances" in refused(lxc, "rename", "default", volume, "other")
    assert "More than one device matches" in refused(lxc, "detach", "default", volume, guest)
    lxc("storage", "volume", "detach", "default", volume, guest, "again")
    lxc("storage", "volume", "detach", "default", volume, guest)
    assert "No device found" in refused(lxc, "detach", "default", volume, guest)
    assert "require a path" in refused(lxc, "attach", "default", volume, guest)
    profile = unique("p")
    lxc("profile", "create", profile)
    lxc("storage", "volume", "attach-profile", "default", volume, profile, "/data")
    lxc("profile", "add", guest, profile)
    assert lxc("exec", guest, "--", "cat", "/data/file").stdout == "hello\n"
    lxc("profile", "remove", guest, profile)
    lxc("storage", "volume", "detach-profile", "default", volume, profile)
    lxc("profile", "delete", profile)
    lxc("storage", "volume", "delete", "default", volume)


def test_snapshots(lxc: Lxc, guest: str, volume: str) -> None:
    lxc("storage", "volume", "attach", "default", volume, guest, "/data")
    lxc("exec", guest, "--", "sh", "-c", "echo before > /data/file")
    lxc("storage", "volume", "snapshot", "default", volume)
    lxc("storage", "volume", "snapshot", "default", volume, "s1", "--no-expiry")
    lxc("exec", guest, "--", "sh", "-c", "echo after > /data/file")
    assert "already in use" in refused(lxc, "snapshot", "default", volume, "s1")
    lxc("storage", "volume", "snapshot", "default", volume, "s1", "--reuse")
    assert "used by running instances" in refused(lxc, "restore", "default", volume, "snap0")
    lxc("storage", "volume", "detach", "default", volume, guest)
    lxc("storage", "volume", "restore", "default", volume, "snap0")
    lxc("storage", "volume", "rename", "default", f"{volume}/snap0", f"{volume}/s0")
    edited = f"description: first\nexpires_at: {EXPIRES}\n"
    lxc("storage", "volume", "edit", "default", f"{volume}/s0", input=edited)
    shown = lxc("storage", "volume", "show", "default", f"{volume}/s0").stdout
    assert "description: first" in shown
    assert f"expires_at: {EXPIRES}" in shown
    lxc("storage", "volume", "attach", "default", volume, guest, "/data")
    assert lxc("exec", guest, "--", "cat", "/data/file").stdout == "before\n"
    lxc("storage", "volume", "detach", "default", volume, guest)
    listed = [row for row in rows(lxc, "default", "-c", "tn") if volume in row]
    assert listed == [f"custom,{volume}", f"custom (snapshot),{volume}/s0", f"custom (snapshot),{volume}/s1"]
    lxc("storage", "volume", "delete", "default", f"{volume}/s0")
    lxc("storage", "volume", "delete", "default", volume)


def test_copies_and_moves(lxc: Lxc, guest: str, pool: str, volume: str) -> None:
    lxc("storage", "volume", "attach", "default", volume, guest, "/data")
    lxc("exec", guest, "--", "sh", "-c", "echo first > /data/file")
    lxc("storage", "volume", "snapshot", "default", volume, "s0")
    lxc("exec", guest, "--", "sh", "-c", "echo second > /data/file")
    whole, alone, old = unique("v"), unique("v"), unique("v")
    done = lxc("storage", "volume", "copy", f"default/{volume}", f"{pool}/{whole}")
    assert done.stdout.strip() == "Storage volume copied successfully!"
    lxc("storage", "volume", "copy", f"default/{volume}", f"default/{alone}", "--volume-only")
    lxc("storage", "volume", "copy", f"default/{volume}/s0", f"{pool}/{old}")
    listed = rows(lxc, pool, "-c", "tn", "type=custom")
    assert sorted(listed) == sorted([f"custom,{whole}", f"custom (snapshot),{whole}/s0", f"custom,{old}"])
    lxc("exec", guest, "--", "sh", "-c", "echo third > /data/file")
    lxc("storage", "volume", "copy", f"default/{volume}", f"{pool}/{whole}", "--refresh")
    moved = unique("v")
    done = lxc("storage", "volume", "move", f"{pool}/{whole}", f"default/{moved}")
    assert done.stdout.strip() == "Storage volume moved successfully!"
    lxc("storage", "volume", "detach", "default", volume, guest)
    for name, where, text in ((moved, "default", "third"), (alone, "default", "second"), (old, pool, "first")):
        lxc("storage", "volume", "attach", where, name, guest, "/data")
        assert lxc("exec", guest, "--", "cat", "/data/file").stdout == f"{text}\n"
        lxc("storage", "volume", "detach", where, name, guest)
        lxc("storage", "volume", "delete", where, name)
    lxc("storage", "volume", "delete", "default", volume)


def test_both_clients_show_the_same(lxc: Lxc, lxc_daemon: Daemon | None, volume: str) -> None:
    """What `lxc` prints, `pylxc` prints."""
    if lxc_daemon is None:
        pytest.skip("LXD has no pylxc")
    lxc("storage", "volume", "snapshot", "default", volume, "s0")
    for words in (
        ("list", "default"),
        ("list", "default", "--all-projects"),
        ("list", "default", "-f", "csv", "-c", "tndcu", "type=custom"),
        ("list", "default", "type=custom", f"name={volume}"),
        ("get", "default", volume, "user.mark"),
        ("get", "default", f"{volume}/s0", "user.mark"),
    ):
        ours = lxc_daemon.command("storage", "volume", *words).stdout
        assert ours == lxc("storage", "volume", *words).stdout
    used = lxc("storage", "info", "default", "--bytes").stdout.partition("used by:")[2]
    assert lxc_daemon.command("storage", "info", "default", "--bytes").stdout.partition("used by:")[2] == used
    assert f"  volumes:\n  - {volume}\n" in used
    theirs = lxc("storage", "volume", "info", "default", volume).stdout
    assert theirs.partition("Usage:")[0] == f"Name: {volume}\nType: custom\nContent type: filesystem\n"
    assert "| s0 " in theirs
    lxc("storage", "volume", "delete", "default", volume)
