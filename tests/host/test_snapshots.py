"""Snapshots of real instances, on pools of every driver."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.wait import until

NEVER = "0001-01-01T00:00:00Z"


@pytest.fixture(scope="module", params=["btrfs", "dir"])
def host(request: pytest.FixtureRequest, pools_daemon: Daemon) -> Iterator[Daemon]:
    """Return the daemon with the default profile's root disk on a pool of one driver."""
    pools_daemon.command("profile", "device", "set", "default", "root", f"pool={request.param}")
    yield pools_daemon
    pools_daemon.delete_all()


@pytest.fixture
def guest(host: Daemon) -> str:
    name = unique("g")
    host.command("launch", "busybox", name)
    return name


def write(host: Daemon, guest: str, text: str) -> None:
    host.command("exec", guest, "--", "sh", "-c", f"echo {text} > /root/note")


def read(host: Daemon, guest: str) -> str:
    return host.command("exec", guest, "--", "cat", "/root/note").stdout.strip()


def snapshots(host: Daemon, guest: str) -> list[str]:
    return [s["name"] for s in host.request("GET", f"/1.0/instances/{guest}/snapshots?recursion=1")]


def test_a_running_instance_goes_back(host: Daemon, guest: str) -> None:
    write(host, guest, "before")
    host.command("config", "set", guest, "user.mark=before")
    host.command("snapshot", guest, "s0")
    assert host.instances()[guest] == "Running"
    write(host, guest, "after")
    host.command("config", "set", guest, "user.mark=after", "limits.memory=64MiB")
    host.command("restore", guest, "s0")
    assert host.instances()[guest] == "Running"
    assert read(host, guest) == "before"
    config = host.request("GET", f"/1.0/instances/{guest}")["config"]
    assert config["user.mark"] == "before"
    assert "limits.memory" not in config
    write(host, guest, "again")
    host.command("restore", guest, "s0")
    assert read(host, guest) == "before"


def test_a_stopped_instance_stays_stopped(host: Daemon, guest: str) -> None:
    write(host, guest, "before")
    host.command("stop", "--force", guest)
    host.command("snapshot", guest)
    host.command("file", "delete", f"{guest}/root/note")
    host.command("restore", guest, "snap0")
    assert host.instances()[guest] == "Stopped"
    assert host.command("file", "pull", f"{guest}/root/note", "-").stdout == "before\n"


def test_names_and_expiry(host: Daemon, guest: str) -> None:
    host.command("config", "set", guest, "snapshots.expiry=1d", "snapshots.pattern=auto")
    host.command("snapshot", guest)
    host.command("snapshot", guest)
    host.command("snapshot", guest, "kept", "--no-expiry")
    assert snapshots(host, guest) == ["auto", "auto-0", "kept"]
    found = host.request("GET", f"/1.0/instances/{guest}?recursion=1")["snapshots"]
    assert found[0]["expires_at"] > found[0]["created_at"]
    assert found[2]["expires_at"] == NEVER
    host.request("PUT", f"/1.0/instances/{guest}/snapshots/kept", {"expires_at": "2100-01-02T03:04:05Z"})
    assert host.request("GET", f"/1.0/instances/{guest}/snapshots/kept")["expires_at"] == "2100-01-02T03:04:05Z"
    host.command("rename", f"{guest}/kept", f"{guest}/precious")
    host.command("delete", f"{guest}/auto", f"{guest}/auto-0")
    assert snapshots(host, guest) == ["precious"]
    host.command("snapshot", guest, "precious", "--reuse")
    assert "precious" in host.command("info", guest).stdout
    listed = host.command("list", guest, "--format", "csv", "--columns", "S").stdout
    assert listed == "1\n"


def test_snapshots_follow_their_instance(host: Daemon, guest: str) -> None:
    host.command("snapshot", guest, "s0")
    host.command("stop", "--force", guest)
    host.command("rename", guest, f"{guest}x")
    assert snapshots(host, f"{guest}x") == ["s0"]
    host.command("restore", f"{guest}x", "s0")
    host.command("delete", f"{guest}x")
    for pool in ("btrfs", "dir"):
        assert f"{guest}x" not in os.listdir(f"{host.dir}/storage-pools/{pool}/containers-snapshots")


def test_files_of_a_snapshot(host: Daemon, guest: str, tmp_path: Path) -> None:
    write(host, guest, "before")
    host.command("exec", guest, "--", "sh", "-c", "ln -s /../../../etc/shadow /root/out; chown 12:13 /root/note")
    host.command("snapshot", guest, "s0")
    write(host, guest, "after")
    for _ in range(2):  # while it runs, and stopped
        assert host.command("file", "pull", f"{guest}/s0/root/note", "-").stdout == "before\n"
        assert host.command("file", "pull", f"{guest}/root/note", "-").stdout == "after\n"
        host.command("stop", "--force", guest, check=False)
    host.command("file", "pull", "-r", f"{guest}/s0/root", str(tmp_path))
    assert (tmp_path / "root/note").read_text() == "before\n"
    files = f"/1.0/instances/{guest}/snapshots/s0/files?path="
    assert b"shadow" in host.send("GET", f"{files}/root/out")
    assert host.parse(host.send("GET", f"{files}/../../etc"))["metadata"]  # the guest's own
    outside = host.command("file", "pull", f"{guest}/s0/root/out", "-", check=False)
    assert Path("/etc/shadow").read_text() not in outside.stdout

    for command in (
        ("file", "push", __file__, f"{guest}/s0/root/new"),
        ("file", "push", "-p", __file__, f"{guest}/s0/root/deep/new"),
        ("file", "push", "-r", str(tmp_path), f"{guest}/s0/root/"),
        ("file", "edit", f"{guest}/s0/root/note"),
        ("file", "delete", f"{guest}/s0/root/note"),
    ):
        refused = host.command(*command, check=False)
        assert refused.stderr == f"Error: {guest}/s0 is a snapshot: its files cannot be changed\n", command
    for method, path, status in (
        ("POST", f"{files}/root/new", 400),
        ("DELETE", f"{files}/root/note", 400),
        ("GET", f"{files}/root/none", 404),
        ("GET", files.replace("/s0/", "/none/") + "/root/note", 404),
        ("GET", files.replace("/s0/", "/..%2f..%2fs0/") + "/root/note", 404),
        ("GET", files, 400),
    ):
        with pytest.raises(ApiError) as error:
            host.request(method, path)
        assert error.value.status == status, (method, path, error.value)
    assert host.command("file", "pull", f"{guest}/s0/root/note", "-").stdout == "before\n"
    host.command("start", guest)
    host.command("exec", guest, "--", "sh", "-c", "mkdir -p /s0/root; echo own > /s0/root/note")
    assert host.command("file", "pull", f"{guest}/s0/root/note", "-").stdout == "own\n"


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b", "a\nb", "x" * 64])
def test_malformed_names(host: Daemon, guest: str, name: str) -> None:
    with pytest.raises(ApiError) as error:
        host.request("POST", f"/1.0/instances/{guest}/snapshots", {"name": name})
    assert error.value.status == 400
    assert snapshots(host, guest) == []


def test_what_is_not_there(host: Daemon, guest: str) -> None:
    host.command("snapshot", guest, "s0")
    for method, path, body, status in (
        ("GET", f"{guest}/snapshots/none", None, 404),
        ("DELETE", f"{guest}/snapshots/none", None, 404),
        ("POST", f"{guest}/snapshots/none", {"name": "new"}, 404),
        ("PUT", guest, {"restore": "none"}, 404),
        ("POST", f"{guest}/snapshots", {"name": "s0"}, 409),
        ("POST", f"{guest}/snapshots/s0", {"name": "s0"}, 409),
        ("POST", f"{guest}/snapshots", {"name": "s1", "expires_at": "tomorrow"}, 400),
        ("POST", f"{guest}/snapshots", {"name": "s1", "stateful": True}, 501),
        ("POST", "none/snapshots", {"name": "s1"}, 404),
    ):
        with pytest.raises(ApiError) as error:
            host.request(method, f"/1.0/instances/{path}", body)
        assert error.value.status == status, (method, path, error.value)
    assert snapshots(host, guest) == ["s0"]
    failed = host.command("restore", guest, "none", check=False)
    assert (failed.returncode, failed.stderr) == (1, "Error: Snapshot not found\n")


def test_the_daemon_dies_in_the_middle(host: Daemon, guest: str) -> None:
    """A snapshot that was being made is gone, one that was being restored is restored."""
    write(host, guest, "before")
    host.command("snapshot", guest, "s0")
    write(host, guest, "after")
    host.command("stop", "--force", guest)
    columns = "instance_id, architecture, description, config, devices, profiles, ephemeral, stateful, created_at"
    database = f"{host.dir}/database/pylxc.db"
    host.signal(signal.SIGKILL)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE instances SET restoring = 's0' WHERE name = ?", (guest,))
        connection.execute(
            f"INSERT INTO instances_snapshots (name, state, new_name, {columns}) "
            f"SELECT 'half', 'creating', '', {columns} FROM instances_snapshots "
            "WHERE name = 's0' AND instance_id = (SELECT id FROM instances WHERE name = ?)",
            (guest,),
        )
    host.start()
    assert snapshots(host, guest) == ["s0"]
    assert host.command("file", "pull", f"{guest}/root/note", "-").stdout == "before\n"


def test_on_schedule(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    """The real daemon takes and removes snapshots by a clock that the test sets."""
    daemon = make_daemon()
    clock = Clock(daemon)
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    daemon.import_image("busybox", busybox_files)
    hourly = "snapshots.schedule=@hourly"
    # A quarter before @hourly of this name: the last step goes past that, and both jobs are due at once.
    clock.advance(minutes=(zlib.crc32(b"runs") % 60 - 15 - clock.now().minute) % 60)
    daemon.command("launch", "busybox", "runs", "-c", hourly, "-c", "snapshots.expiry=90M")
    daemon.command("init", "busybox", "stopped", "-c", hourly)
    daemon.command("init", "busybox", "both", "-c", hourly, "-c", "snapshots.schedule.stopped=true")
    daemon.command("init", "busybox", "starts", "-c", "snapshots.schedule=@startup, @never")
    clock.advance(minutes=61)
    until(lambda: snapshots(daemon, "runs") and snapshots(daemon, "both"), "snapshots are taken")
    assert (snapshots(daemon, "runs"), snapshots(daemon, "both")) == (["snap0"], ["snap0"])
    daemon.command("start", "starts")
    assert snapshots(daemon, "starts") == ["snap0"]
    daemon.stop()
    daemon.start()
    clock.advance(minutes=60)
    until(lambda: len(snapshots(daemon, "both")) > 1, "one more is taken after a restart")
    until(lambda: "snap1" in snapshots(daemon, "runs"), "here as well")
    clock.advance(minutes=31)
    until(lambda: "snap0" not in snapshots(daemon, "runs"), "the first one expires")
    assert snapshots(daemon, "stopped") == []
    assert snapshots(daemon, "starts") == ["snap0"]
