"""Backups of custom volumes: files, streams, and what is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.host.test_backups import POOLS
from tests.host.test_publish import without_nodes
from tests.support import tree
from tests.support.daemon import ApiError, Daemon, unique


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(pools_daemon: Daemon, pool: str) -> str:
    """Return a volume that has everything, and a snapshot."""
    name = unique("v")
    pools_daemon.command("storage", "volume", "create", pool, name, "user.mark=yes")
    where = root(pools_daemon, pool, name)
    os.mkdir(f"{where}/all")
    tree.build(f"{where}/all", files=20)
    Path(where, "note").write_text("first\n")
    pools_daemon.command("storage", "volume", "snapshot", pool, name, "s0")
    Path(where, "note").write_text("second\n")
    Path(where, "backup.yaml").write_text("the user's own\n")
    os.chown(where, 33, 34)
    os.chmod(where, 0o2770)
    return name


def root(daemon: Daemon, pool: str, name: str) -> str:
    return f"{daemon.dir}/storage-pools/{pool}/custom/default_{name}"


@pytest.mark.parametrize("other", POOLS)
def test_a_backup_holds_everything(pools_daemon: Daemon, source: str, pool: str, other: str, tmp_path: Path) -> None:
    before = without_nodes(tree.describe(root(pools_daemon, pool, source)))
    file = f"{tmp_path}/backup.tar.gz"
    pools_daemon.command("storage", "volume", "export", pool, source, file)
    assert os.listdir(tmp_path) == ["backup.tar.gz"]
    pools_daemon.command("storage", "volume", "delete", pool, source)
    said = pools_daemon.command("storage", "volume", "import", other, file).stdout
    assert said == f"Storage volume {source} imported\n"
    after = tree.describe(root(pools_daemon, other, source))
    before["all"] = after["all"] = None  # its time changed with the nodes that were left out
    assert after == before
    base = f"/1.0/storage-pools/{other}/volumes/custom/{source}"
    assert pools_daemon.request("GET", base)["config"]["user.mark"] == "yes"
    assert [s["name"] for s in pools_daemon.request("GET", f"{base}/snapshots?recursion=1")] == [f"{source}/s0"]
    pools_daemon.command("storage", "volume", "restore", other, source, "s0")
    assert Path(root(pools_daemon, other, source), "note").read_text() == "first\n"
    refused = pools_daemon.command("storage", "volume", "import", other, file, check=False)
    assert refused.stderr.startswith("Error: Volume by that name already exists")
    copy = unique("v")
    pools_daemon.command("storage", "volume", "import", other, file, copy)
    assert Path(root(pools_daemon, other, copy), "note").read_text() == "second\n"


def test_through_a_pipe_while_it_is_used(pools_daemon: Daemon, pool: str) -> None:
    name, volume, copy = unique("c"), unique("v"), unique("v")
    pools_daemon.command("storage", "volume", "create", pool, volume)
    pools_daemon.command("storage", "volume", "snapshot", pool, volume, "s0")
    pools_daemon.command("launch", "busybox", name)
    pools_daemon.command("storage", "volume", "attach", pool, volume, name, "/data")
    pools_daemon.command("exec", name, "--", "sh", "-c", "echo here > /data/note; chown 7:8 /data/note")
    words = ("storage", "volume", "export", pool, volume, "-", "--compression", "zstd", "--volume-only")
    backup = pools_daemon.command(*words, text=False).stdout
    pools_daemon.command("storage", "volume", "import", pool, "-", copy, input=backup, text=False)
    pools_daemon.command("storage", "volume", "attach", pool, copy, name, "/copy")
    assert pools_daemon.command("exec", name, "--", "stat", "-c", "%u:%g", "/copy/note").stdout == "7:8\n"
    assert pools_daemon.request("GET", f"/1.0/storage-pools/{pool}/volumes/custom/{copy}/snapshots") == []
    pools_daemon.command("delete", "--force", name)


def test_backups_on_the_server(pools_daemon: Daemon, source: str, pool: str) -> None:
    base = f"/1.0/storage-pools/{pool}/volumes/custom/{source}/backups"
    pools_daemon.request("POST", base, {"volume_only": True, "compression_algorithm": "none"})
    (found,) = pools_daemon.request("GET", f"{base}?recursion=1")
    assert (found["name"], found["volume_only"], found["optimized_storage"]) == ("backup0", True, False)
    pools_daemon.request("POST", f"{base}/backup0", {"name": "kept"})
    assert pools_daemon.request("GET", base) == [f"{base}/kept"]
    (file,) = os.listdir(f"{pools_daemon.dir}/backups")
    path = f"{pools_daemon.dir}/backups/{file}"
    assert os.stat(path).st_mode & 0o777 == 0o600
    listed = subprocess.run(["tar", "-tf", path], check=True, capture_output=True, text=True).stdout.split("\n")
    assert listed[:2] == ["backup/index.yaml", "backup/volume/"]
    pools_daemon.request("DELETE", f"{base}/kept")
    assert os.listdir(f"{pools_daemon.dir}/backups") == []


def test_what_is_refused(pools_daemon: Daemon, source: str, pool: str, tmp_path: Path) -> None:
    base = f"/1.0/storage-pools/{pool}/volumes"
    for method, path, body, status in (
        ("POST", f"{base}/custom/{source}/backups", {"compression_algorithm": "zip"}, 400),
        ("POST", f"{base}/custom/{source}/backups", {"name": "a/b"}, 400),
        ("GET", f"{base}/custom/{source}/backups/none", None, 404),
        ("GET", f"{base}/custom/none/backups", None, 404),
        ("GET", f"{base}/container/none/backups", None, 400),
    ):
        with pytest.raises(ApiError) as error:
            pools_daemon.request(method, path, body)
        assert error.value.status == status, (method, path, error.value)
    before = pools_daemon.request("GET", base)
    words = ("storage", "volume", "export", pool, source, f"{tmp_path}/backup", "--compression", "none")
    pools_daemon.command(*words)
    backup = (tmp_path / "backup").read_bytes()
    damaged: dict[str, bytes] = {
        "empty": b"",
        "cut short": backup[: len(backup) // 2],
        "of something else": backup.replace(b"type: custom\nconfig", b"type: contai\nconfig"),
        "a block volume": backup.replace(b"content_type: filesystem", b"content_type: block     "),
        "an unknown key": backup.replace(b"      user.mark: ", b"      usar.mark: "),
        "a map of ids": backup.replace(b"      user.mark: 'yes'", b"      volatile.idmap.last: x"),
    }
    for what, content in damaged.items():
        (tmp_path / "file").write_bytes(content)
        refused = pools_daemon.command(
            "storage", "volume", "import", pool, f"{tmp_path}/file", unique("v"), check=False
        )
        assert refused.returncode == 1, what
        (complaint,) = [line for line in refused.stderr.splitlines() if not line.startswith("Importing")]
        assert complaint.startswith("Error: "), (what, refused.stderr)
    assert pools_daemon.request("GET", base) == before
    assert os.listdir(f"{pools_daemon.dir}/backups") == []


def test_backups_go_with_their_volume(pools_daemon: Daemon, source: str, pool: str) -> None:
    pools_daemon.request("POST", f"/1.0/storage-pools/{pool}/volumes/custom/{source}/backups", {})
    pools_daemon.command("storage", "volume", "delete", pool, source)
    pools_daemon.stop()
    pools_daemon.start()
    assert os.listdir(f"{pools_daemon.dir}/backups") == []
