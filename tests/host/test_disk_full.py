"""No room at every step of what needs some: one clear line, nothing lost or left behind, and deleting is possible."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.daemon import ApiError, Daemon
from tests.support.wait import until
from tests.support.world import POOLS, Act, Host, World, root

MIB = 1 << 20
TREE_BYTES = 8 * MIB


@pytest.fixture
def disk() -> Iterator[Path]:
    """Mount an ext4 file system of 200 MiB without reserved blocks."""
    with tempfile.TemporaryDirectory(prefix="pt-disk-", dir="/var/tmp") as directory:
        image, path = Path(directory, "disk.img"), Path(directory, "mount")
        path.mkdir()
        with image.open("wb") as file:
            file.truncate(200 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, path], check=True)
        path.chmod(0o755)
        yield path
        subprocess.run(["umount", path], check=True)


@pytest.fixture(params=POOLS)
def host(
    request: pytest.FixtureRequest, disk: Path, make_daemon: Callable[..., Daemon], busybox_files: list[str]
) -> Iterator[Host]:
    """Return a host whose instance `a`, with a snapshot, is in a pool that can be filled."""
    daemon = make_daemon(str(disk) if request.param == "dir" else "/var/tmp")
    daemon.start()
    preseed = {
        "storage_pools": [
            {"name": "btrfs", "driver": "btrfs", "config": {"size": "160MiB"}},
            {"name": "dir", "driver": "dir"},
        ],
        "profiles": [{"name": "default", "devices": root(request.param)}],
    }
    daemon.command("admin", "init", "--preseed", input=json.dumps(preseed))
    daemon.import_image("busybox", busybox_files)
    daemon.command("init", "busybox", "a")
    host = Host(daemon, random.Random(1))
    data = Path(host.pool(request.param), "containers/a/rootfs/data")
    data.mkdir()
    for number in range(8):
        (data / str(number)).write_bytes(os.urandom(TREE_BYTES // 8))
    daemon.command("snapshot", "a", "s0")
    (data / "version").write_text("later")
    daemon.command("copy", "a", "b", "--instance-only")
    host.world = host.look()
    host.imported = host.world["a"]
    host.backup = daemon.send("GET", "/1.0/instances/a/export?compression=none")
    filler = Filler(Path(host.pool(request.param)))
    yield host
    filler.remove()
    daemon.delete_all()


class Filler:
    """Takes the room of a pool away.

    Args:
        pool: the pool's directory.
    """

    def __init__(self, pool: Path) -> None:
        self._path = pool / "filler"

    def leave(self, free: int) -> None:
        """Fill the pool but for `free` bytes."""
        with self._path.open("wb") as file:
            size, chunk = 0, 64 * MIB
            while chunk >= 512:
                try:
                    os.posix_fallocate(file.fileno(), size, chunk)
                    size += chunk
                except OSError:
                    chunk //= 2
            file.truncate(max(0, size - free))
        os.sync()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        os.sync()


def is_right(host: Host, expected: World) -> bool:
    return not host.wrong(expected)


def refusal(host: Host, act: Act) -> str:
    """Do something; return the error that it ends with, "" for none."""
    try:
        host.do(act)
    except ApiError as refused:
        return refused.text
    return ""


def test_no_room(host: Host) -> None:
    pool = host.world["a"].pool
    filler, failures = Filler(Path(host.pool(pool))), set()
    for free in (0, 200 << 10, 2 * MIB, TREE_BYTES - MIB):
        for what in ("snapshot", "copy", "restore", "copy --refresh", "import"):
            filler.remove()
            act = {
                "snapshot": lambda: host.snapshot("a"),
                "copy": lambda: host.copy("a", pool),
                "restore": lambda: host.restore("a"),
                "copy --refresh": lambda: host.refresh("a", "b"),
                "import": lambda: host.take_backup(pool),
            }[what]()
            filler.leave(free)
            text = refusal(host, act)
            if text:
                failures.add(what)
                assert "no space left on" in text.lower(), (what, free, text)
                assert "\n" not in text
            expected = host.world if text else act.after
            until(partial(is_right, host, expected), f"{what} with {free} bytes left: {text}")
    everything = {"snapshot", "copy", "restore", "copy --refresh", "import"}
    assert failures >= (everything if pool == "dir" else {"import"})

    filler.leave(0)
    host.daemon.command("delete", "a/s0")
    host.daemon.command("delete", "b")
    host.daemon.stop()
    filler.leave(0)
    host.daemon.start()
    filler.leave(0)
    host.daemon.delete_all()
    filler.remove()
    host.daemon.command("init", "busybox", "new")
