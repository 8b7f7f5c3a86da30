"""Backups of the daemon's database, going back to one, and databases that cannot be used."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.wait import until


@pytest.fixture
def host(make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon()
    daemon.start()
    return daemon


def database(host: Daemon) -> Path:
    return Path(host.dir, "database", "pylxc.db")


def profiles(host: Daemon) -> list[str]:
    return sorted(profile["name"] for profile in host.request("GET", "/1.0/profiles?recursion=1"))


def change(path: str, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def run_daemon(host: Daemon, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected to end."""
    command = [sys.executable, "-m", host.module, *args]
    command = host.netns.command(*command) if host.netns else command
    return subprocess.run(command, env=host.env, check=False, capture_output=True, text=True, timeout=60)


def test_a_backup_comes_back(host: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    file.write_text("older")
    host.command("profile", "create", "before")
    host.command("admin", "backup", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["backup.db"]
    piped: Any = host.command("admin", "backup", "-", text=False).stdout
    assert piped[:15] == b"SQLite format 3"
    host.command("profile", "create", "after")
    refused = host.command("admin", "restore", str(file), check=False)
    assert "The daemon is running (--restart stops it" in refused.stderr
    host.stop()
    told = host.command("admin", "restore", str(file)).stdout
    former = told.rpartition(" ")[2].strip()
    with contextlib.closing(sqlite3.connect(former)) as kept:
        assert kept.execute("SELECT count(*) FROM profiles WHERE name = 'after'").fetchone() == (1,)
    host.start()
    assert "before" in profiles(host)
    assert "after" not in profiles(host)


def test_restoring_while_instances_run(host: Daemon, busybox_files: list[str], tmp_path: Path) -> None:
    file = f"{tmp_path}/backup.db"
    host.command("admin", "init", "--minimal")
    host.import_image("busybox", busybox_files)
    host.command("init", "busybox", "old")
    host.command("admin", "backup", file)
    host.command("config", "device", "add", "old", "d1", "disk", "source=/tmp", "path=/d1")
    host.command("start", "old")
    host.command("launch", "busybox", "new")
    host.stop()
    # The command starts a daemon in the end, which this test then takes for its own.
    host.command("admin", "restore", file)
    host.start()
    assert host.instances() == {"old": "Running"}
    # What it has is what it was started with, not what the backup says; then it is brought in line.
    host.command("exec", "old", "--", "sh", "-c", "! grep -q ' /d1 ' /proc/self/mounts")
    host.command("restart", "--force", "old")
    told = host.command("admin", "recover", "--yes").stdout
    assert 'Container "new"' in told
    assert host.instances() == {"new": "Running", "old": "Running"}


def test_restart_stops_the_daemon_for_it(host: Daemon, tmp_path: Path) -> None:
    file = f"{tmp_path}/backup.db"
    host.command("admin", "backup", file)
    host.command("profile", "create", "after")
    assert host.process
    try:
        host.command("admin", "restore", file, "--restart")
        assert host.process.wait(30) == 0
        assert "after" not in profiles(host)
    finally:
        pid = int(Path(host.dir, "pylxcd.pid").read_text())
        os.kill(pid, signal.SIGTERM)
    assert until(lambda: not os.path.exists(f"{host.dir}/pylxcd.pid"), "the daemon that the command started ends")
    host.start()


def test_what_is_no_backup_replaces_nothing(host: Daemon, tmp_path: Path) -> None:
    host.command("admin", "backup", f"{tmp_path}/good")
    host.stop()
    before, files = database(host).read_bytes(), sorted(os.listdir(f"{host.dir}/database"))
    good = Path(tmp_path, "good").read_bytes()
    Path(tmp_path, "text").write_text("this is no database\n" * 100)
    Path(tmp_path, "cut").write_bytes(good[: len(good) // 2])
    Path(tmp_path, "empty").write_bytes(b"")
    for name, statement in {
        "newer": "UPDATE alembic_version SET version_num = '9999'",
        "other": "DROP TABLE alembic_version",
        "lacking": "ALTER TABLE instances DROP COLUMN restoring",
        "orphans": "INSERT INTO profiles VALUES (99, 99, 'x', '', '{}', '{}')",
    }.items():
        shutil.copy(f"{tmp_path}/good", f"{tmp_path}/{name}")
        change(f"{tmp_path}/{name}", statement)
    for name in ("text", "cut", "empty", "newer", "other", "lacking", "orphans", "missing"):
        refused = host.command("admin", "restore", f"{tmp_path}/{name}", check=False)
        assert refused.returncode == 1, name
        assert refused.stderr.startswith("Error: ")
        assert refused.stderr.count("\n") == 1
        assert f"{tmp_path}/{name}" in refused.stderr
    assert database(host).read_bytes() == before
    assert sorted(os.listdir(f"{host.dir}/database")) == files
    assert os.listdir(f"{host.dir}/database/backups") == []
    host.start()


@pytest.mark.parametrize("damage", ["page", "newer"])
def test_a_database_that_cannot_be_used_is_left_alone(host: Daemon, tmp_path: Path, damage: str) -> None:
    host.command("profile", "create", "mine")
    host.command("admin", "backup", f"{tmp_path}/good")
    host.stop()
    kept = f"{host.dir}/database/backups/20260101T000000Z-daily.db"
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    shutil.copy(f"{tmp_path}/good", kept)
    if damage == "page":
        content = bytearray(database(host).read_bytes())
        content[8192:12288] = os.urandom(4096)
        database(host).write_bytes(content)
    else:
        change(str(database(host)), "UPDATE alembic_version SET version_num = '9999'")
    before = database(host).read_bytes()
    ended = run_daemon(host)
    assert ended.returncode == 3
    assert ended.stderr.startswith(f"Error: The database {database(host)} ")
    assert ended.stderr.count("\n") == 1
    assert (f"pylxc admin restore {kept}" if damage == "page" else "install that one") in ended.stderr
    client = host.command("list", check=False)
    assert client.returncode == 1
    assert f"The daemon did not start: The database {database(host)} " in client.stderr
    assert database(host).read_bytes() == before
    host.command("admin", "restore", kept)
    host.start()
    assert "mine" in profiles(host)


def test_who_waits_at_the_socket_is_told_why(host: Daemon) -> None:
    """As with systemd, which has the socket before there is a daemon."""
    host.stop()
    database(host).write_bytes(b"damaged" * 1000)
    script = """
import os, socket, subprocess, sys
listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen()
client = socket.socket(socket.AF_UNIX); client.connect(sys.argv[1])
client.sendall(b"GET /1.0 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
os.dup2(listener.fileno(), 3)
code = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); python = sys.executable; "
code += "os.execv(python, [python, '-m', sys.argv[1]])"
status = subprocess.call([sys.executable, "-c", code, sys.argv[2]], pass_fds=[3], env={**os.environ, "LISTEN_FDS": "1"})
print(status, client.recv(65536).decode())
"""
    told = subprocess.run(
        [sys.executable, "-c", script, f"{host.dir}/s", host.module],
        env=host.env, check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert told.startswith("3 HTTP/1.1 503 ")
    assert "cannot be used: file is not a database (pylxc admin restore FILE if there is a backup" in told
    database(host).unlink()
    host.start()
