"""Backups of real instances: files, streams, and LXD's own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pylxc.kernel import btrfs
from tests.host.test_publish import without_nodes
from tests.support import tree
from tests.support.daemon import ApiError, Daemon, unique

POOLS = ("btrfs", "dir")


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(pools_daemon: Daemon, pool: str) -> str:
    """Return a stopped instance with a tree that has everything, and a snapshot."""
    name = unique("s")
    pools_daemon.command("init", "busybox", name, "--storage", pool, "-c", "user.mark=yes")
    where = root(pools_daemon, pool, name)
    os.mkdir(f"{where}/all")
    tree.build(f"{where}/all", files=20)
    if pool == "btrfs":
        btrfs.create(f"{where}/all/nested")
        Path(where, "all/nested/file").write_text("of a subvolume\n")
    Path(where, "note").write_text("first\n")
    pools_daemon.command("snapshot", name, "s0")
    Path(where, "note").write_text("second\n")
    return name


def root(daemon: Daemon, pool: str, name: str) -> str:
    return f"{daemon.dir}/storage-pools/{pool}/containers/{name}/rootfs"


def note(daemon: Daemon, name: str) -> str:
    return daemon.command("file", "pull", f"{name}/note", "-").stdout


@pytest.mark.parametrize("other", POOLS)
def test_a_backup_holds_everything(pools_daemon: Daemon, source: str, pool: str, other: str, tmp_path: Path) -> None:
    before = without_nodes(tree.describe(f"{root(pools_daemon, pool, source)}/all"))
    file = f"{tmp_path}/backup.tar.gz"
    pools_daemon.command("export", source, file)
    assert os.listdir(tmp_path) == ["backup.tar.gz"]
    pools_daemon.command("delete", source)
    pools_daemon.command("import", file, "--storage", other)
    after = tree.describe(f"{root(pools_daemon, other, source)}/all")
    before["."] = after["."] = None  # its time changed with the nodes that were left out
    assert after == before
    made = pools_daemon.request("GET", f"/1.0/instances/{source}?recursion=1")
    assert made["config"]["user.mark"] == "yes"
    assert made["expanded_devices"]["root"]["pool"] == other
    assert [s["name"] for s in made["snapshots"]] == ["s0"]
    pools_daemon.command("start", source)
    assert note(pools_daemon, source) == "second\n"
    pools_daemon.command("restore", source, "s0")
    assert note(pools_daemon, source) == "first\n"
    refused = pools_daemon.command("import", file, check=False)
    assert refused.stderr == f'Error: Instance "{source}" already exists\n'
    copy = unique("c")
    pools_daemon.command("import", file, copy)
    assert note(pools_daemon, copy) == "second\n"


@pytest.mark.parametrize("compression", ["bzip2", "lzma", "none", "xz", "zstd"])
def test_through_a_pipe_while_it_runs(pools_daemon: Daemon, compression: str) -> None:
    name, copy = unique("s"), unique("c")
    pools_daemon.command("launch", "busybox", name)
    pools_daemon.command("exec", name, "--", "sh", "-c", "echo here > /note")
    backup = pools_daemon.command("export", name, "-", "--compression", compression, text=False).stdout
    assert pools_daemon.instances()[name] == "Running"
    pools_daemon.command("import", "-", copy, input=backup, text=False)
    assert note(pools_daemon, copy) == "here\n"


def test_backups_on_the_server(pools_daemon: Daemon, source: str) -> None:
    base = f"/1.0/instances/{source}/backups"
    pools_daemon.request("POST", base, {"instance_only": True, "compression_algorithm": "none"})
    (found,) = pools_daemon.request("GET", f"{base}?recursion=1")
    assert (found["name"], found["instance_only"]) == ("backup0", True)
    pools_daemon.request("POST", f"{base}/backup0", {"name": "kept"})
    assert pools_daemon.request("GET", base) == [f"{base}/kept"]
    files = os.listdir(f"{pools_daemon.dir}/backups")
    assert len(files) == 1
    assert os.stat(f"{pools_daemon.dir}/backups/{files[0]}").st_mode & 0o777 == 0o600
    listed = subprocess.run(
        ["tar", "-tf", f"{pools_daemon.dir}/backups/{files[0]}"], check=True, capture_output=True, text=True
    ).stdout.split("\n")
    assert listed[:2] == ["backup/index.yaml", "backup/container/backup.yaml"]
    assert not [line for line in listed if line.startswith("backup/snapshots")]
    pools_daemon.request("DELETE", f"{base}/kept")
    assert os.listdir(f"{pools_daemon.dir}/backups") == []


TRICKS: tuple[tuple[str, Any], ...] = (
    *(("snapshots", [name]) for name in ("../../x", "a/b", "", "..", "a\nb", 7, None, ["s0"], "none")),
    ("snapshots", "s0"),
    ("snapshots", ["s0", "s0"]),
    ("name", "../x"),
    ("name", None),
    ("config", []),
    ("config", {"container": "text"}),
)


def with_index(backup: bytes, key: str, value: Any) -> bytes:
    """Return a backup with one thing changed in its index.yaml."""
    with tarfile.open(fileobj=io.BytesIO(backup)) as source:
        member, following = source.getmembers()[:2]
        assert member.name == "backup/index.yaml"
        content = source.extractfile(member)
        assert content
        text = yaml.safe_dump({**yaml.safe_load(content), key: value}).encode()
    changed = tarfile.TarInfo(member.name)
    changed.size = len(text)
    return changed.tobuf() + text + bytes(-len(text) % 512) + backup[following.offset :]


def last_file(backup: bytes) -> int:
    """Return where the last member of a backup begins."""
    with tarfile.open(fileobj=io.BytesIO(backup)) as source:
        return source.getmembers()[-1].offset


def test_what_is_refused(pools_daemon: Daemon, source: str, tmp_path: Path) -> None:
    base = f"/1.0/instances/{source}/backups"
    for method, path, body, status in (
        ("POST", base, {"compression_algorithm": "zip"}, 400),
        ("POST", base, {"name": "a/b"}, 400),
        ("GET", f"{base}/none", None, 404),
        ("DELETE", f"{base}/none", None, 404),
        ("GET", "/1.0/instances/none/backups", None, 404),
    ):
        with pytest.raises(ApiError) as error:
            pools_daemon.request(method, path, body)
        assert error.value.status == status, (method, path, error.value)
    instances = pools_daemon.instances()
    pools_daemon.command("export", source, f"{tmp_path}/backup", "--compression", "none")
    backup = (tmp_path / "backup").read_bytes()
    damaged: dict[str, bytes] = {
        "empty": b"",
        "rubbish": b"rubbish" * 1000,
        "cut short": backup[: len(backup) // 2],
        "no index": backup.replace(b"backup/index.yaml", b"backup/indeX.yaml"),
        "no YAML": backup.replace(b"name: s-", b"\tname: s"),
        "no container": backup.replace(b"  container:", b"  contained:"),
        "cut between two files": backup[: last_file(backup)],
        **{f"{key}: {value!r}": with_index(backup, key, value) for key, value in TRICKS},
    }
    for what, content in damaged.items():
        (tmp_path / "file").write_bytes(content)
        name = () if what.startswith("name: ") else (unique("c"),)
        refused = pools_daemon.command("import", f"{tmp_path}/file", *name, check=False)
        assert refused.returncode == 1, what
        (complaint,) = [line for line in refused.stderr.splitlines() if not line.startswith("Importing")]
        assert complaint.startswith("Error: "), (what, refused.stderr)
    assert pools_daemon.instances() == instances
    assert os.listdir(f"{pools_daemon.dir}/backups") == []
    # A thousand snapshots make an index of two megabytes.
    (tmp_path / "file").write_bytes(with_index(backup, "much", "x" * (2 << 20)))
    pools_daemon.command("import", f"{tmp_path}/file", unique("c"))


def test_the_daemon_dies_meanwhile(pools_daemon: Daemon, source: str, pool: str) -> None:
    pools_daemon._exchange("POST", f"/1.0/instances/{source}/backups", {"compression_algorithm": "xz"}, 60)
    pools_daemon.signal(signal.SIGKILL)
    pools_daemon.start()
    known = pools_daemon.request("GET", f"/1.0/instances/{source}/backups")
    assert len(os.listdir(f"{pools_daemon.dir}/backups")) == len(known)
    assert not list(Path(pools_daemon.dir, "storage-pools", pool, ".staging").rglob("rootfs"))
