"""The machine of these tests is made while those of other rooms run, and stands still until it is asked for."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon import unique
from tests.support.images import CACHE, image_files
from tests.vm.stock_host import CHECKOUT, CONTRACT, StockHost, build_disk

IMAGES = {"busybox": "busybox", "debian12": "debian/12", "debian13": "debian/13"}


class Machine:
    """A machine that is being made by a thread of its own."""

    def __init__(self) -> None:
        self._things = ExitStack()
        self._thread = ThreadPoolExecutor(1)
        self._made: Future[StockHost] = self._thread.submit(self._make)
        self._running: StockHost | None = None

    def get(self) -> StockHost:
        """Return the machine, running; raises what went wrong."""
        machine = self._made.result()
        machine.go_on()
        return machine

    def close(self) -> None:
        """Remove everything, as soon as that can be."""
        if self._running is not None:
            self._running.kill()
        self._thread.shutdown()
        self._things.close()

    def _make(self) -> StockHost:
        """Boot a machine that has pylxc installed, its units enabled, and three images imported."""
        images = {alias: image_files(recipe) for alias, recipe in IMAGES.items()}
        files = {Path(file): f"/images/{alias}/{Path(file).name}" for alias, each in images.items() for file in each}
        disk = CACHE / f"{unique('vm-root')}.img"
        for leftover in (disk, disk.with_suffix(".kernel"), disk.with_suffix(".console")):
            self._things.callback(leftover.unlink, missing_ok=True)
        with tempfile.TemporaryDirectory() as made:
            files |= {_xfs_image(Path(made)): "/images/xfs.zst", _contract(Path(made)): "/images/contract.tar"}
            _, kernel = build_disk(disk, files=files)
        machine = self._running = self._things.enter_context(StockHost(disk, kernel))
        machine.check("pylxc", "admin", "units", "--install", timeout=300)
        for alias, each in images.items():
            paths = [f"/images/{alias}/{Path(file).name}" for file in each]
            machine.check("pylxc", "image", "import", *paths, "--alias", alias, timeout=300)
        machine.stand_still()
        return machine


_MACHINE = pytest.StashKey[Machine]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to make the machine when tests are going to ask for it."""
    wanted = any(item.path.parent == Path(__file__).parent for item in session.items)
    if wanted and os.geteuid() == 0 and not session.config.option.collectonly:
        session.config.stash[_MACHINE] = Machine()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the machine, also when nobody has asked for it."""
    if machine := config.stash.get(_MACHINE, None):
        machine.close()


@pytest.fixture(scope="session")
def host(pytestconfig: pytest.Config) -> Iterator[StockHost]:
    """Return the machine."""
    yield pytestconfig.stash[_MACHINE].get()
    pytestconfig.stash[_MACHINE].close()


def _xfs_image(directory: Path) -> Path:
    """Return an empty file system, packed: the machine has no mkfs.xfs."""
    plain = directory / "xfs.img"
    with open(plain, "wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.xfs", "-q", plain], check=True)
    subprocess.run(["zstd", "-q", "--rm", plain, "-o", f"{plain}.zst"], check=True)
    return Path(f"{plain}.zst")


def _contract(directory: Path) -> Path:
    """Return a tar of the drivers' tests with the pytest that runs here."""
    packed = directory / "contract.tar"
    with tarfile.open(packed, "w") as tar:
        for name in (f"host/{CONTRACT}", "support/tree.py"):
            tar.add(CHECKOUT / "tests" / name, f"tests/{name}")
        for package in ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments"):
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
            tar.add(source, source.name)
    return packed
