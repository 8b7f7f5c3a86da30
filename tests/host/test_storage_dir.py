"""Pools of driver dir on real file systems: whole copies, crashes, a full disk, reflinks."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylxc.db import models
from pylxc.db.migrate import open_database
from pylxc.errors import BadRequest, Conflict, Internal, NotFound, PylxcError
from pylxc.paths import Paths
from pylxc.services.events import EventBus
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools
from tests.support import tree
from tests.support.daemon import ROOT

IMAGE = "a" * 64
OTHER = "b" * 64


class Store:
    """A StoragePools service on a directory of its own."""

    def __init__(self, root: str) -> None:
        self.paths = Paths(root)
        self.db = open_database(self.paths.database)
        self.pools = StoragePools(self.db, self.paths, EventBus())
        self.pools.start()

    def volumes(self) -> list[tuple[str, str, str]]:
        """Return (type, name, state) of every row."""
        with self.db.reading() as session:
            rows = session.query(models.StorageVolume).all()
        return sorted((row.type, row.name, row.state) for row in rows)

    def leftovers(self, pool: str = "default") -> list[str]:
        """Return what lies in the directories that are nobody's, once deleted volumes are freed."""
        self.pools.finish()
        base = Path(self.paths.pool(pool))
        found = [*base.glob(".staging/*/*"), *base.glob(".trash/*")]
        known = {name for _, name, _ in self.volumes()}
        for kind in ("containers", "images"):
            found += [path for path in (base / kind).iterdir() if path.name not in known]
        return [str(path) for path in found]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path))
    store.pools.create("default", "dir")
    yield store
    store.db.close()


def unpack(directory: str) -> None:
    """Fill an image's volume."""
    os.mkdir(f"{directory}/rootfs")
    tree.build(f"{directory}/rootfs")
    Path(directory, "metadata.yaml").write_text("architecture: x86_64\n")


def test_instance_is_a_complete_copy(store: Store) -> None:
    store.pools.volumes.ensure_image("default", IMAGE, unpack)
    store.pools.volumes.create_instance("default", "default", "c1", IMAGE)
    source = f"{store.paths.pool('default')}/images/{IMAGE}"
    copy = store.pools.volumes.path("default", "default", "c1")
    assert tree.describe(f"{copy}/rootfs") == tree.describe(f"{source}/rootfs")
    assert Path(copy, "metadata.yaml").read_text() == "architecture: x86_64\n"
    before = tree.describe(f"{source}/rootfs")
    Path(copy, "rootfs/bin/setuid").write_bytes(b"changed")
    assert tree.describe(f"{source}/rootfs") == before


def test_nobody_but_root_gets_into_a_volume(store: Store, tmp_path: Path) -> None:
    for parent in tmp_path.parents:
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    store.pools.volumes.create_instance("default", "default", "c1", None)
    volume = Path(store.pools.volumes.path("default", "default", "c1"))
    (volume / "tool").write_text("")
    assert subprocess.run(["stat", volume], user=65534, capture_output=True, check=False).returncode == 0
    assert subprocess.run(["stat", volume / "tool"], user=65534, capture_output=True, check=False).returncode == 1


def test_a_tree_that_changes_is_measured(store: Store) -> None:
    store.pools.volumes.create_instance("default", "default", "c1", None)
    volume, over = store.pools.volumes.path("default", "default", "c1"), threading.Event()

    def change() -> None:
        while not over.is_set():
            os.makedirs(f"{volume}/a/b/c")
            shutil.rmtree(f"{volume}/a")

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(30):
            assert store.pools.trees.measure(Place("default", "default", "c1"))[0] > 0
    finally:
        over.set()
        changing.join()


def test_image_is_unpacked_once(store: Store) -> None:
    calls = []

    def slowly(directory: str) -> None:
        calls.append(directory)
        time.sleep(0.2)
        unpack(directory)

    threads = [
        threading.Thread(target=store.pools.volumes.ensure_image, args=("default", IMAGE, slowly)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert store.volumes() == [("image", IMAGE, "created")]


def test_failed_unpack_leaves_nothing(store: Store) -> None:
    def fail(directory: str) -> None:
        unpack(directory)
        raise BadRequest("damaged")

    with pytest.raises(BadRequest, match="damaged"):
        store.pools.volumes.ensure_image("default", IMAGE, fail)
    assert store.volumes() == []
    assert store.leftovers() == []
    store.pools.volumes.ensure_image("default", IMAGE, unpack)


def test_delete_rename_and_names(store: Store) -> None:
    store.pools.volumes.ensure_image("default", IMAGE, unpack)
    store.pools.volumes.create_instance("default", "default", "c1", IMAGE)
    with pytest.raises(Conflict):
        store.pools.volumes.create_instance("default", "default", "c1", IMAGE)
    with pytest.raises(NotFound):
        store.pools.volumes.create_instance("default", "default", "c2", OTHER)
    store.pools.volumes.rename_instance("default", "default", "c1", "c3")
    store.pools.volumes.rename_instance("default", "default", "c1", "c3")
    assert os.path.isdir(store.pools.volumes.path("default", "default", "c3"))
    with pytest.raises(Conflict, match="The storage pool already exists"):
        store.pools.create("default", "dir")
    assert store.pools.get("default")["used_by"] == [f"/1.0/images/{IMAGE}", "/1.0/instances/c3"]
    with pytest.raises(BadRequest, match="in use"):
        store.pools.delete("default")
    store.pools.volumes.delete_instance("default", "default", "c3")
    store.pools.volumes.delete_instance("default", "default", "c3")
    store.pools.volumes.delete_image(IMAGE)
    assert store.volumes() == []
    assert store.leftovers() == []
    store.pools.delete("default")
    assert os.listdir(store.paths.storage_pools) == []


def test_pool_on_a_directory_of_the_user(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    store.pools.create("other", "dir", {"source": str(tmp_path / "elsewhere")})
    store.pools.volumes.create_instance("other", "default", "c1", None)
    assert (tmp_path / "elsewhere/containers/c1").is_dir()
    with pytest.raises(BadRequest, match="isn't empty"):
        store.pools.create("third", "dir", {"source": str(tmp_path / "elsewhere")})
    with pytest.raises(BadRequest, match="cannot be changed"):
        store.pools.update("other", {"source": "/elsewhere"}, None)
    store.pools.volumes.delete_instance("other", "default", "c1")
    store.pools.delete("other")
    assert (tmp_path / "elsewhere").is_dir()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert store.pools.names() == ["default"]


@pytest.mark.parametrize(
    ("name", "driver", "config", "complaint"),
    [
        ("a/b", "dir", {}, "Invalid storage pool name"),
        ("", "dir", {}, "No storage pool name"),
        ("p", "tape", {}, "Unknown storage driver"),
        ("p", "dir", {"sise": "1GiB"}, "Unknown storage pool configuration key"),
        ("p", "dir", {"source": "relative"}, "absolute path"),
        ("p", "dir", {"source": "/nonexistent"}, "no directory"),
    ],
)
def test_bad_pools(store: Store, name: str, driver: str, config: dict[str, str], complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        store.pools.create(name, driver, config)
    assert store.pools.names() == ["default"]
    assert os.listdir(store.paths.storage_pools) == ["default"]


def test_directory_of_a_pool_that_was_lost_is_kept(store: Store) -> None:
    lost = Path(store.paths.pool("lost"), "containers/c1/rootfs")
    lost.mkdir(parents=True)
    disk = Path(store.paths.disk("disk"))
    disk.parent.mkdir()
    disk.write_bytes(b"all that there is")
    for name, driver in (("lost", "dir"), ("disk", "btrfs"), ("disk", "dir")):
        with pytest.raises(Conflict, match="is there already"):
            store.pools.create(name, driver)
    again = StoragePools(store.db, store.paths, EventBus())
    again.start()
    assert lost.is_dir()
    assert disk.read_bytes() == b"all that there is"


def test_missing_pool_is_shown_and_comes_back(store: Store) -> None:
    pool = store.paths.pool("default")
    os.rename(pool, f"{pool}-away")
    again = StoragePools(store.db, store.paths, EventBus())
    again.start()
    assert again.get("default")["status"] == "Unavailable"
    with pytest.raises(PylxcError, match="unavailable"):
        again.volumes.create_instance("default", "default", "c1", None)
    os.rename(f"{pool}-away", pool)
    again.volumes.create_instance("default", "default", "c1", None)
    assert again.get("default")["status"] == "Created"


# Crashes

_LOOP = """
import sys
from tests.host.test_storage_dir import IMAGE, Store, unpack
store = Store(sys.argv[1])
print("ready", flush=True)
while True:
    store.pools.volumes.ensure_image("default", IMAGE, unpack)
    for name in ("c1", "c2"):
        store.pools.volumes.create_instance("default", "default", name, IMAGE)
    store.pools.volumes.delete_instance("default", "default", "c1")
    store.pools.volumes.delete_image(IMAGE)
    store.pools.volumes.delete_instance("default", "default", "c2")
"""


def test_killed_at_random_moments(store: Store) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    moments = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'manager'}:{ROOT}"}
    expected = None
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", _LOOP, store.paths.root], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0, 0.4))  # the moment of the crash
            process.send_signal(signal.SIGKILL)
            process.wait()
        again = StoragePools(store.db, store.paths, EventBus())
        again.start()
        again.finish()
        assert store.leftovers() == []
        for kind, name, state in store.volumes():
            assert state == "created"
            directory = f"{store.paths.pool('default')}/{'images' if kind == 'image' else 'containers'}/{name}"
            whole = tree.describe(f"{directory}/rootfs")
            expected = expected or len(whole)
            assert len(whole) == expected
        for name in ("c1", "c2"):
            again.volumes.delete_instance("default", "default", name)
        again.volumes.delete_image(IMAGE)
        assert store.volumes() == []


# A full disk, and reflinks


@pytest.fixture
def loop_mount(tmp_path: Path) -> Iterator[Callable[[str, int], str]]:
    mounted: list[str] = []

    def make(fstype: str, megabytes: int) -> str:
        image, target = tmp_path / f"{fstype}.img", tmp_path / f"{fstype}.mnt"
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run([f"mkfs.{fstype}", "-q", image], check=True, capture_output=True)
        target.mkdir()
        subprocess.run(["mount", "-o", "loop", image, target], check=True)
        mounted.append(str(target))
        (target / "pool").mkdir()
        return str(target / "pool")

    yield make
    for target in mounted:
        subprocess.run(["umount", target], check=True)


def test_full_disk_is_named_and_leaves_nothing(
    store: Store, loop_mount: Callable[[str, int], str], need: Callable[..., None]
) -> None:
    need("mkfs.ext4")
    store.pools.create("small", "dir", {"source": loop_mount("ext4", 48)})

    def large(directory: str) -> None:
        os.mkdir(f"{directory}/rootfs")
        for number in range(260):
            Path(f"{directory}/rootfs/{number}").write_bytes(os.urandom(100_000))

    store.pools.volumes.ensure_image("small", IMAGE, large)
    free = store.pools.resources("small")["space"]["used"]
    with pytest.raises(Internal, match="No space left on device"):
        store.pools.volumes.create_instance("small", "default", "c1", IMAGE)
    assert store.leftovers("small") == []
    assert store.volumes() == [("image", IMAGE, "created")]
    assert abs(store.pools.resources("small")["space"]["used"] - free) < 1 << 20

    # What was deleted is still being freed when the next copy needs the room.
    store.pools.volumes.create_instance("small", "default", "half", None)
    Path(store.pools.volumes.path("small", "default", "half"), "x").write_bytes(bytes(int(free_bytes(store) * 0.8)))
    store.pools.volumes.delete_image(IMAGE)
    store.pools.volumes.delete_instance("small", "default", "half")
    store.pools.volumes.ensure_image("small", IMAGE, large)

    def too_large(directory: str) -> None:
        Path(f"{directory}/x").write_bytes(bytes(60 << 20))

    with pytest.raises(Internal, match="No space left on device"):
        store.pools.volumes.ensure_image("small", OTHER, too_large)
    assert store.leftovers("small") == []


def free_bytes(store: Store) -> int:
    """Return the free space of pool `small`."""
    space = store.pools.resources("small")["space"]
    return space["total"] - space["used"]


@pytest.mark.parametrize("fstype", ["xfs", "btrfs"])
def test_copies_share_data_where_there_are_reflinks(
    store: Store, loop_mount: Callable[[str, int], str], need: Callable[..., None], fstype: str
) -> None:
    need(f"mkfs.{fstype}")
    store.pools.create("links", "dir", {"source": loop_mount(fstype, 320)})

    def large(directory: str) -> None:
        unpack(directory)
        Path(f"{directory}/rootfs/large").write_bytes(os.urandom(100 << 20))

    store.pools.volumes.ensure_image("links", IMAGE, large)
    for number in range(4):  # 400 MB in 320
        store.pools.volumes.create_instance("links", "default", f"c{number}", IMAGE)
    copy = store.pools.volumes.path("links", "default", "c3")
    image = f"{store.paths.pool('links')}/images/{IMAGE}"
    assert tree.describe(f"{copy}/rootfs") == tree.describe(f"{image}/rootfs")
    shutil.rmtree(copy)
