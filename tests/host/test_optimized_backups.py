"""Backups in btrfs's own form: what they hold, and what a hostile one cannot do."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from pylxc.kernel import btrfs
from tests.host.test_backups import note, root
from tests.host.test_volume_backups import root as volume_root
from tests.support import tree
from tests.support.daemon import Daemon, unique

Members = dict[str, bytes]


def without_devices(described: dict[str, object]) -> dict[str, object]:
    """Leave out what is left out of backups in this form; sockets are in them, unlike in tar."""
    return {key: value for key, value in described.items() if key not in ("null", "block", ".")}


@pytest.fixture
def source(pools_daemon: Daemon) -> str:
    """Return a stopped instance with everything, snapshots that differ in every way, and subvolumes of its own."""
    name = unique("s")
    pools_daemon.command("init", "busybox", name, "--storage", "btrfs")
    where = root(pools_daemon, "btrfs", name)
    os.mkdir(f"{where}/all")
    tree.build(f"{where}/all", files=20)
    Path(where, "note").write_text("first\n")
    Path(where, "big").write_bytes(os.urandom(300_000))
    pools_daemon.command("snapshot", name, "s0")
    subprocess.run(["cp", "--reflink=always", f"{where}/big", f"{where}/clone"], check=True)
    os.rename(f"{where}/all/many", f"{where}/all/more")
    os.unlink(f"{where}/all/more/3")
    os.mkdir(f"{where}/all/dev")
    os.rename(f"{where}/all/null", f"{where}/all/dev/null")
    os.rename(f"{where}/all/dev", f"{where}/all/nodes")
    os.removexattr(f"{where}/all/private", "user.note")
    btrfs.create(f"{where}/nested")
    Path(where, "nested/in").write_text("in first\n")
    btrfs.create(f"{where}/nested/inner")
    pools_daemon.command("snapshot", name, "s1")
    os.unlink(f"{where}/all/nodes/null")
    Path(where, "nested/in").write_text("in second\n")
    Path(where, "note").write_text("second\n")
    return name


def test_a_backup_holds_everything(pools_daemon: Daemon, source: str, tmp_path: Path) -> None:
    where = root(pools_daemon, "btrfs", source)
    before = without_devices(tree.describe(f"{where}/all"))
    file, plain = f"{tmp_path}/optimized", f"{tmp_path}/plain"
    pools_daemon.command("export", source, file, "--optimized-storage", "--compression", "none")
    pools_daemon.command("export", source, plain, "--compression", "none")
    assert os.path.getsize(file) < os.path.getsize(plain) / 2  # each snapshot is what differs from the one before
    with tarfile.open(file) as archive:
        assert archive.getnames() == [
            "backup/index.yaml",
            "backup/optimized_header.yaml",
            "backup/snapshots/s0.bin",
            "backup/snapshots/s1.bin",
            "backup/snapshots/s1_rootfs-nested.bin",
            "backup/snapshots/s1_rootfs-nested-inner.bin",
            "backup/container.bin",
            "backup/container_rootfs-nested.bin",
            "backup/container_rootfs-nested-inner.bin",
        ]
    pools_daemon.command("delete", source)
    pools_daemon.command("import", file)
    after = without_devices(tree.describe(f"{where}/all"))
    before["nodes"] = after["nodes"] = None  # its time changed with the node that was left out
    assert after == before
    assert Path(where, "clone").read_bytes() == Path(where, "big").read_bytes()
    assert btrfs.nested_paths(os.path.dirname(where)) == ["rootfs/nested", "rootfs/nested/inner"]
    assert Path(where, "nested/in").read_text() == "in second\n"
    pools_daemon.command("start", source)
    assert note(pools_daemon, source) == "second\n"
    pools_daemon.command("restore", source, "s1")
    assert (Path(where, "nested/in").read_text(), note(pools_daemon, source)) == ("in first\n", "first\n")
    pools_daemon.command("restore", source, "s0")
    assert "many" in os.listdir(f"{where}/all")
    assert not os.path.exists(f"{where}/nested")
    pools_daemon.command("delete", "--force", source)


def test_volumes(pools_daemon: Daemon) -> None:
    name, copy = unique("v"), unique("v")
    pools_daemon.command("storage", "volume", "create", "btrfs", name, "user.mark=yes")
    where = volume_root(pools_daemon, "btrfs", name)
    tree.build(where, files=20)
    pools_daemon.command("storage", "volume", "snapshot", "btrfs", name, "s0")
    Path(where, "note").write_text("second\n")
    os.chown(where, 33, 34)
    os.chmod(where, 0o2770)
    before = without_devices(tree.describe(where))
    words = ("storage", "volume", "export", "btrfs", name, "-", "--optimized-storage", "--compression", "zstd")
    backup = pools_daemon.command(*words, text=False).stdout
    pools_daemon.command("storage", "volume", "import", "btrfs", "-", copy, input=backup, text=False)
    where = volume_root(pools_daemon, "btrfs", copy)
    assert without_devices(tree.describe(where)) == before
    info = os.stat(where)
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (33, 34, 0o2770)
    pools_daemon.command("storage", "volume", "restore", "btrfs", copy, "s0")
    assert not os.path.exists(f"{where}/note")


def test_what_has_no_such_form(pools_daemon: Daemon, source: str, tmp_path: Path) -> None:
    name, volume = unique("s"), unique("v")
    pools_daemon.command("init", "busybox", name, "--storage", "dir")
    pools_daemon.command("storage", "volume", "create", "dir", volume)
    for words in (("export", name), ("storage", "volume", "export", "dir", volume)):
        pools_daemon.command(*words, f"{tmp_path}/plain", "--optimized-storage", "--compression", "none")
        with tarfile.open(f"{tmp_path}/plain") as archive:
            members = archive.getnames()
        assert "backup/index.yaml" in members
        assert "backup/optimized_header.yaml" not in members
    pools_daemon.command("export", source, f"{tmp_path}/file", "--optimized-storage")
    refused = pools_daemon.command("import", f"{tmp_path}/file", unique("c"), "--storage", "dir", check=False)
    assert refused.stderr.startswith(
        "Error: Optimized backup storage driver 'btrfs' differs from the target storage pool driver 'dir'"
    )


# Hostile streams


def command(kind: int, **fields: bytes) -> bytes:
    keys = {"uuid": 1, "size": 4, "mode": 5, "rdev": 8, "name": 13, "value": 14, "path": 15, "to": 16, "link": 17}
    keys |= {"offset": 18, "data": 19, "clone_uuid": 20, "clone_path": 22, "clone_offset": 23, "clone_len": 24}
    data = b"".join(struct.pack("<HH", keys[key], len(value)) + value for key, value in fields.items())
    return struct.pack("<IHI", len(data), kind, 0) + data


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


BEGIN = b"btrfs-stream\0\1\0\0\0" + command(1, path=b"x", uuid=b"u" * 16)
END = command(21)
MEMBER = "backup/volume.bin"
HOSTILE: dict[str, Callable[[], bytes]] = {
    "no stream": lambda: b"rubbish" * 10,
    "of another version": lambda: b"btrfs-stream\0\2\0\0\0",
    "no subvolume": lambda: b"btrfs-stream\0\1\0\0\0" + command(4, path=b"d"),
    "cut short": lambda: BEGIN + command(4, path=b"d"),
    "an unknown command": lambda: BEGIN + command(99),
    "a missing attribute": lambda: BEGIN + command(8, path=b"d") + END,
    "a malformed attribute": lambda: BEGIN + struct.pack("<IHI", 4, 4, 0) + struct.pack("<HH", 15, 99) + END,
    "a huge command": lambda: BEGIN + struct.pack("<IHI", 1 << 31, 4, 0),
    "upwards": lambda: BEGIN + command(4, path=b"../up") + END,
    "absolute": lambda: BEGIN + command(4, path=b"/etc/up") + END,
    "through a link": lambda: BEGIN + command(8, path=b"l", link=b"/etc") + command(3, path=b"l/up") + END,
    "a clone of another": lambda: (
        BEGIN
        + command(3, path=b"f")
        + command(
            16,
            path=b"f",
            offset=number(0),
            clone_uuid=b"v" * 16,
            clone_path=b"f",
            clone_offset=number(0),
            clone_len=number(4096),
        )
        + END
    ),
    "a snapshot of another": lambda: (
        b"btrfs-stream\0\1\0\0\0" + command(2, path=b"x", uuid=b"u" * 16, clone_uuid=b"v" * 16) + END
    ),
    "another place": lambda: BEGIN + command(8, path=b"up", link=b"..") + command(9, path=b"up/0", to=b"up/1") + END,
    "a place beside it": lambda: BEGIN + command(8, path=b"up", link=b"..") + command(4, path=b"up/x") + END,
    "a mode beside it": lambda: (
        BEGIN + command(8, path=b"up", link=b"..") + command(18, path=b"up", mode=number(0o777)) + END
    ),
    "no place": lambda: BEGIN + command(8, path=b"up", link=b"..") + command(12, path=b"up/0") + END,
}


def members(file: str) -> Members:
    with tarfile.open(file) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def packed(content: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_hostile_streams(pools_daemon: Daemon, tmp_path: Path) -> None:
    name = unique("v")
    pools_daemon.command("storage", "volume", "create", "btrfs", name)
    words = ("storage", "volume", "export", "btrfs", name, f"{tmp_path}/file", "--optimized-storage")
    pools_daemon.command(*words, "--compression", "none")
    whole = members(f"{tmp_path}/file")
    attempts = {what: {**whole, MEMBER: make()} for what, make in HOSTILE.items()}
    attempts["no stream at all"] = {key: value for key, value in whole.items() if key != MEMBER}
    for what, subvolumes in {
        "a path upwards": [{"path": "/"}, {"path": "/../x"}],
        "the same twice": [{"path": "/"}, {"path": "/"}],
        "the root missing": [{"path": "/x"}],
        "an unknown snapshot": [{"path": "/"}, {"path": "/", "snapshot": "s9"}],
        "no list": 7,
    }.items():
        header = yaml.safe_dump({"subvolumes": subvolumes}).encode()
        attempts[what] = {**whole, "backup/optimized_header.yaml": header}
    before = pools_daemon.request("GET", "/1.0/storage-pools/btrfs/volumes/custom")
    for what, content in attempts.items():
        done = pools_daemon.command(
            "storage", "volume", "import", "btrfs", "-", unique("v"), input=packed(content), text=False, check=False
        )
        complaint = bytes(cast("Any", done.stderr)).decode()
        assert done.returncode == 1, what
        assert complaint.startswith("Error: "), (what, complaint)
        assert complaint.count("\n") == 1, (what, complaint)
    assert pools_daemon.request("GET", "/1.0/storage-pools/btrfs/volumes/custom") == before
    pools_daemon.command("storage", "volume", "delete", "btrfs", name)
    for path in ("/etc/up", "/up"):
        assert not os.path.exists(path)
    pool = f"{pools_daemon.dir}/storage-pools/btrfs"
    assert os.listdir(f"{pool}/.staging") == []
    assert os.listdir(f"{pools_daemon.dir}/backups") == []
