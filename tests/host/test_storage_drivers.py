"""What every storage driver does, on a real file system of its own; another driver adds its name to DRIVERS."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylxc.drivers.storage import registry
from pylxc.drivers.storage.driver import PoolFull, StorageDriver
from pylxc.errors import BadRequest, NotSupported, PylxcError, Unavailable
from pylxc.kernel import btrfs
from tests.support import tree

DRIVERS = ("btrfs", "dir")
Load = Callable[..., StorageDriver]


@pytest.fixture(params=DRIVERS)
def driver_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def load(tmp_path: Path, driver_name: str) -> Iterator[Load]:
    """Return drivers over one pool, `load()`; what they mounted goes with the test."""
    path = tmp_path / "storage-pools" / "p1"
    path.parent.mkdir()

    def make(**config: str) -> StorageDriver:
        return registry.load(driver_name, str(path), config)

    yield make
    for mount in (path, tmp_path / "other"):
        if os.path.ismount(mount):
            subprocess.run(["umount", mount], check=True)


@pytest.fixture
def pool(load: Load) -> StorageDriver:
    driver = load()
    driver.create()
    return driver


def fill(directory: str) -> None:
    os.mkdir(f"{directory}/rootfs")
    tree.build(f"{directory}/rootfs")


def write(path: str, size: int) -> None:
    """Write random bytes, each MiB to the disk."""
    with open(path, "wb", buffering=0) as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())


def leftovers(pool: StorageDriver) -> list[Path]:
    pool.sweep()
    base = Path(pool.path("."))
    return [path for path in (*base.glob(".staging/*"), *base.glob(".staging/*/*"), *base.glob(".trash/*"))
            if not path.name.isdigit() or len(path.name) > 2]  # fmt: skip


def test_a_copy_is_whole_and_independent(pool: StorageDriver) -> None:
    pool.create_volume("images/a", fill)
    before = tree.describe(pool.path("images/a"))
    pool.clone_volume("images/a", "containers/c1")
    assert tree.describe(pool.path("containers/c1")) == before
    Path(pool.path("containers/c1"), "rootfs/bin/setuid").write_bytes(b"changed")
    Path(pool.path("containers/c1"), "rootfs/new").write_bytes(b"new")
    assert tree.describe(pool.path("images/a")) == before
    assert leftovers(pool) == []


def test_only_root_gets_into_a_volume(pool: StorageDriver) -> None:
    def give_away(directory: str) -> None:
        os.chmod(directory, 0o2777)
        os.chown(directory, 1000, 1000)

    pool.create_volume("containers/c1", give_away)
    info = os.stat(pool.path("containers/c1"))
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (0, 0, 0o700)


def test_what_fails_leaves_nothing(pool: StorageDriver) -> None:
    def fail(directory: str) -> None:
        fill(directory)
        raise BadRequest("no")

    with pytest.raises(BadRequest, match="no"):
        pool.create_volume("images/a", fail)
    assert not os.path.exists(pool.path("images/a"))
    with pytest.raises(PylxcError):
        pool.clone_volume("images/missing", "containers/c1")
    assert not os.path.exists(pool.path("containers/c1"))
    assert leftovers(pool) == []


def test_snapshots_lie_below_their_instance(pool: StorageDriver) -> None:
    pool.create_volume("containers/c1", fill)
    before = tree.describe(pool.path("containers/c1"))
    for name in ("s0", "s1"):
        pool.clone_volume("containers/c1", f"containers-snapshots/c1/{name}", readonly=True)
    Path(pool.path("containers/c1"), "rootfs/late").write_text("later")
    assert tree.describe(pool.path("containers-snapshots/c1/s0")) == before
    pool.rename_volume("containers-snapshots/c1/s0", "containers-snapshots/c1/first")
    pool.rename_volume("containers-snapshots/c1", "containers-snapshots/c2")
    assert tree.describe(pool.path("containers-snapshots/c2/first")) == before
    pool.delete_volume("containers-snapshots/c2/first")
    assert os.path.isdir(pool.path("containers-snapshots/c2/s1"))
    pool.delete_volume("containers-snapshots/c2/s1")
    assert not os.path.exists(pool.path("containers-snapshots/c2"))
    assert leftovers(pool) == []


def test_restoring_brings_back_what_was(pool: StorageDriver) -> None:
    pool.create_volume("containers/c1", fill)
    before = tree.describe(pool.path("containers/c1"))
    pool.clone_volume("containers/c1", "containers-snapshots/c1/s0", readonly=True)
    subprocess.run(["rm", "-rf", f"{pool.path('containers/c1')}/rootfs/bin"], check=True)
    Path(pool.path("containers/c1"), "rootfs/late").write_text("later")
    pool.replace_volume("containers-snapshots/c1/s0", "containers/c1")
    assert tree.describe(pool.path("containers/c1")) == before
    Path(pool.path("containers/c1"), "rootfs/writable").write_text("yes")
    assert tree.describe(pool.path("containers-snapshots/c1/s0")) == before
    with pytest.raises(PylxcError):
        pool.replace_volume("containers-snapshots/c1/missing", "containers/c1")
    assert Path(pool.path("containers/c1"), "rootfs/writable").read_text() == "yes"
    assert leftovers(pool) == []


def test_what_has_been_restored_is_so_whatever_fails_then(load: Load, pool: StorageDriver) -> None:
    for volume in ("containers/c1", "containers-snapshots/c1/s0"):
        pool.create_volume(volume)
    Path(pool.path("containers/c1"), "late").touch()
    subprocess.run(["chattr", "+i", pool.path(".trash")], check=True)
    try:
        pool.replace_volume("containers-snapshots/c1/s0", "containers/c1")
    finally:
        subprocess.run(["chattr", "-i", pool.path(".trash")], check=True)
    assert os.listdir(pool.path("containers/c1")) == []
    load().open()
    assert leftovers(pool) == []


def test_deleting_and_renaming_bear_repetition(pool: StorageDriver) -> None:
    pool.create_volume("containers/c1", fill)
    pool.rename_volume("containers/c1", "containers/c2")
    pool.rename_volume("containers/c1", "containers/c2")
    with pytest.raises(PylxcError):
        pool.rename_volume("containers/none", "containers/c3")
    pool.delete_volume("containers/c2")
    pool.delete_volume("containers/c2")
    assert os.listdir(pool.path("containers")) == []
    assert leftovers(pool) == []


def test_what_cannot_be_removed_keeps_no_other_from_going(pool: StorageDriver) -> None:
    trash = Path(pool.path("."), ".trash")
    (trash / "stuck").mkdir()
    (trash / "stuck/file").touch()
    subprocess.run(["chattr", "+i", trash / "stuck/file"], check=True)
    try:
        for name in "abcd":
            pool.create_volume(f"containers/{name}")
            pool.delete_volume(f"containers/{name}")
        with pytest.raises(PylxcError, match="not permitted"):
            pool.sweep()
        assert os.listdir(trash) == ["stuck"]
    finally:
        subprocess.run(["chattr", "-i", trash / "stuck/file"], check=True)
    assert leftovers(pool) == []


def test_a_pool_is_found_again(load: Load, pool: StorageDriver) -> None:
    pool.create_volume("containers/c1", fill)
    before = tree.describe(pool.path("containers/c1"))
    pool.close()
    again = load()
    again.open()
    assert tree.describe(again.path("containers/c1")) == before
    again.open()  # by the next daemon, while it is in use
    assert tree.describe(again.path("containers/c1")) == before


def test_what_a_killed_daemon_was_making_is_trash(load: Load, pool: StorageDriver) -> None:
    class Killed(BaseException):
        pass

    started = threading.Event()

    def hang(directory: str) -> None:
        fill(directory)
        started.set()
        again = load()
        again.open()
        again.sweep()
        assert not os.path.exists(directory)
        raise Killed

    with pytest.raises(Killed):
        pool.create_volume("images/a", hang)
    assert started.is_set()
    assert leftovers(pool) == []


def test_a_deleted_pool_leaves_nothing(tmp_path: Path, pool: StorageDriver) -> None:
    pool.create_volume("containers/c1", fill)
    pool.clone_volume("containers/c1", "containers-snapshots/c1/s0", readonly=True)
    pool.delete()
    assert [path for path in tmp_path.rglob("*") if path.name not in ("storage-pools", "disks")] == []
    loops = subprocess.run(["losetup", "-a"], check=True, capture_output=True, text=True).stdout
    assert str(tmp_path) not in loops


def test_a_missing_pool_is_unavailable(load: Load) -> None:
    with pytest.raises(Unavailable):
        load().open()


def test_a_source_must_be_an_empty_directory(tmp_path: Path, load: Load) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for source, message in (("full", "isn't empty"), ("missing", "is no directory"), ("full/file", "is no directory")):
        with pytest.raises(BadRequest, match=message):
            load(source=f"{tmp_path}/{source}").create()
    with pytest.raises(BadRequest, match="absolute"):
        load(source="relative").create()
    assert os.listdir(tmp_path / "storage-pools") == []


def test_a_full_pool_says_so(load: Load, tmp_path: Path, driver_name: str) -> None:
    if driver_name == "btrfs":
        pool = load(size="128MiB")
    else:
        (tmp_path / "other").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path / "other"], check=True)
        pool = load(source=str(tmp_path / "other"))
    pool.create()

    with pytest.raises(PoolFull):
        pool.create_volume("images/a", lambda directory: write(f"{directory}/big", 256 << 20))
    assert not os.path.exists(pool.path("images/a"))
    assert leftovers(pool) == []


def test_a_size_holds(load: Load, pool: StorageDriver, tmp_path: Path) -> None:
    pool.create_volume("containers/c1")
    if not can_limit(pool):
        assert pool.usage("containers/c1") is None
        with pytest.raises(NotSupported, match="cannot limit"):
            pool.set_size("containers/c1", 8 << 20)
        pool.set_size("containers/c1", 0)
        return
    big = f"{pool.path('containers/c1')}/big"
    pool.set_size("containers/c1", 8 << 20)
    assert is_refused(write_as_guest(big, 16))
    used = pool.usage("containers/c1")
    assert used is not None
    assert 4 << 20 <= used <= 8 << 20
    with pytest.raises(BadRequest, match="in use"):
        pool.set_size("containers/c1", 2 << 20)
    assert pool.size("containers/c1") == 8 << 20
    pool.close()
    again = load()
    again.open()
    assert again.size("containers/c1") == 8 << 20
    again.rename_volume("containers/c1", "containers/c2")
    again.set_size("containers/c2", 0)
    assert write_as_guest(f"{again.path('containers/c2')}/more", 16) == ""


def test_a_size_is_of_the_volume_not_of_its_tree(pool: StorageDriver, tmp_path: Path) -> None:
    if not can_limit(pool):
        return
    pool.create_volume("containers/c1", fill)
    pool.set_size("containers/c1", 32 << 20)
    pool.clone_volume("containers/c1", "containers-snapshots/c1/s0", readonly=True)
    assert pool.size("containers-snapshots/c1/s0") == 0
    pool.clone_volume("containers/c1", "containers/c2")
    assert pool.size("containers/c2") == 0
    assert write_as_guest(f"{pool.path('containers/c2')}/big", 48) == ""

    pool.replace_volume("containers-snapshots/c1/s0", "containers/c1")
    is_held(pool, "containers/c1")
    os.mkdir(tmp_path / "elsewhere")
    fill(str(tmp_path / "elsewhere"))
    pool.refresh_volume(str(tmp_path / "elsewhere"), "containers/c1")
    is_held(pool, "containers/c1")
    pool.refresh_volume(pool.path("containers-snapshots/c1/s0"), "containers/c1")
    is_held(pool, "containers/c1")
    with pytest.raises(PylxcError):
        pool.refresh_volume(str(tmp_path / "nowhere"), "containers/c1")
    assert leftovers(pool) == []
    is_held(pool, "containers/c1")


def can_limit(pool: StorageDriver) -> bool:
    try:
        pool.require_sizes()
    except NotSupported:
        return False
    return True


def is_held(pool: StorageDriver, volume: str) -> None:
    """Assert that a volume of 32 MiB is held to that, and leave it as it was."""
    assert pool.size(volume) == 32 << 20
    big = Path(pool.path(volume), "big")
    assert is_refused(write_as_guest(str(big), 40))
    big.unlink()


def is_refused(error: str) -> bool:
    return "quota exceeded" in error or "No space left" in error  # the latter by xfs


def write_as_guest(path: str, mebibytes: int) -> str:
    """Write random bytes as one who has not all rights of the host, whom ext4 lets past; return what went wrong."""
    argv = ["setpriv", "--bounding-set=-sys_resource", "--", "dd", "if=/dev/urandom", f"of={path}", "bs=1M"]
    argv += [f"count={mebibytes}", "conv=fsync", "status=none"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stderr


class TestBtrfs:
    """What only btrfs has."""

    @pytest.fixture(params=["btrfs"])
    def driver_name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_a_loop_file_as_large_as_asked(self, tmp_path: Path, load: Load) -> None:
        assert load(size="256MiB").create() == {"source": f"{tmp_path}/disks/p1.img", "size": "256MiB"}
        assert os.stat(tmp_path / "disks" / "p1.img").st_size == 256 << 20
        assert os.stat(tmp_path / "disks" / "p1.img").st_mode & 0o777 == 0o600

    def test_nested_subvolumes_are_copied_and_deleted(self, pool: StorageDriver) -> None:
        pool.create_volume("containers/c1", fill)
        root = f"{pool.path('containers/c1')}/rootfs"
        for path in ("sub", "sub/deep er", "bin/näme"):
            btrfs.create(f"{root}/{path}")
            Path(root, path, "file").write_text(path)
        pool.clone_volume("containers/c1", "containers-snapshots/c1/s0", readonly=True)
        before = tree.describe(pool.path("containers/c1"))
        assert tree.describe(pool.path("containers-snapshots/c1/s0")) == before
        Path(root, "sub/deep er/file").write_text("changed")
        pool.replace_volume("containers-snapshots/c1/s0", "containers/c1")
        assert tree.describe(pool.path("containers/c1")) == before
        pool.delete_volume("containers/c1")
        pool.delete_volume("containers-snapshots/c1/s0")
        assert leftovers(pool) == []

    def test_hundreds_of_nested_subvolumes(self, pool: StorageDriver) -> None:
        pool.create_volume("containers/c1")
        for number in range(300):
            btrfs.create(f"{pool.path('containers/c1')}/{number}")
        pool.clone_volume("containers/c1", "containers/c2")
        copied = os.scandir(pool.path("containers/c2"))
        assert len([entry for entry in copied if btrfs.is_subvolume(entry.path)]) == 300
        pool.delete_volume("containers/c2")
        assert leftovers(pool) == []

    def test_a_subvolume_whose_path_is_too_long(self, pool: StorageDriver) -> None:
        pool.create_volume("containers/c1")
        fd = os.open(pool.path("containers/c1"), os.O_RDONLY)
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=fd)
            above, fd = fd, os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
            os.close(above)
        for name in ("sub", "sub/inner"):
            btrfs.create(f"/proc/self/fd/{fd}/{name}")
        os.close(fd)
        pool.delete_volume("containers/c1")
        assert leftovers(pool) == []

    def test_a_snapshot_is_read_only(self, pool: StorageDriver) -> None:
        pool.create_volume("containers/c1", fill)
        pool.clone_volume("containers/c1", "containers-snapshots/c1/s0", readonly=True)
        with pytest.raises(OSError, match="Read-only"):
            Path(pool.path("containers-snapshots/c1/s0"), "file").write_text("no")

    def test_a_directory_of_a_file_system_that_is_there(self, tmp_path: Path, load: Load) -> None:
        (tmp_path / "other").mkdir()
        with open(tmp_path / "file.img", "wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.btrfs", "-q", tmp_path / "file.img"], check=True)
        subprocess.run(["mount", "-o", "loop", tmp_path / "file.img", tmp_path / "other"], check=True)
        btrfs.create(f"{tmp_path}/other/pool")
        pool = load(source=f"{tmp_path}/other/pool")
        assert pool.create() == {}
        pool.create_volume("containers/c1", fill)
        pool.clone_volume("containers/c1", "containers-snapshots/c1/s0", readonly=True)
        assert btrfs.is_subvolume(f"{tmp_path}/other/pool/containers/c1")
        pool.close()
        load(source=f"{tmp_path}/other/pool").open()
        pool.delete()
        assert os.listdir(tmp_path / "other" / "pool") == []
        (tmp_path / "plain").mkdir()
        with pytest.raises(BadRequest, match="not on btrfs"):
            load(source=f"{tmp_path}/plain").create()

    def test_a_block_device(self, tmp_path: Path, load: Load) -> None:
        with open(tmp_path / "disk.img", "wb") as file:
            file.truncate(256 << 20)
        argv = ["losetup", "--find", "--show", f"{tmp_path}/disk.img"]
        device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        try:
            pool = load(source=device)
            made = pool.create()
            pool.create_volume("containers/c1", fill)
            pool.close()
            again = load(**made)
            again.open()
            assert os.path.isdir(again.path("containers/c1/rootfs"))
            again.close()
            with pytest.raises(BadRequest, match="holds a file system already"):
                registry.load("btrfs", f"{tmp_path}/storage-pools/p2", {"source": device}).create()
            again.open()
            again.delete()
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
        with pytest.raises(Unavailable, match=r"No block device|cannot be used"):
            load(**made).open()

    def test_groups_go_with_their_volumes(self, pool: StorageDriver) -> None:
        pool.create_volume("containers/c1")
        pool.set_size("containers/c1", 32 << 20)
        btrfs.create(f"{pool.path('containers/c1')}/nested")
        pool.clone_volume("containers/c1", "containers-snapshots/c1/s0", readonly=True)
        pool.replace_volume("containers-snapshots/c1/s0", "containers/c1")
        pool.delete_volume("containers-snapshots/c1/s0")
        pool.sweep()
        pool.delete_volume("containers/c1")
        pool.sweep()
        base = pool.path(".")
        # The first begins what the second waits for, which the kernel would do half a minute later.
        subprocess.run(["btrfs", "filesystem", "sync", base], check=True, capture_output=True)
        subprocess.run(["btrfs", "subvolume", "sync", base], check=True, capture_output=True)
        argv = ["btrfs", "qgroup", "show", "--raw", base]
        shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert re.findall(r"^0/(\d+)", shown, re.MULTILINE) == ["5"], shown
