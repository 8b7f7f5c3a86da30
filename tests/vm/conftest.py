"""The machine of these tests, and what is put into it."""

from __future__ import annotations

import importlib.util
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import unique
from tests.support.images import CACHE, image_files
from tests.vm.stock_host import CHECKOUT, CONTRACT, StockHost, build_disk

IMAGES = {"busybox": "busybox", "debian12": "debian/12", "debian13": "debian/13"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockHost]:
    """Boot a machine that has pylxc installed, its units enabled, and three images imported."""
    images = {alias: image_files(recipe) for alias, recipe in IMAGES.items()}
    files = {Path(file): f"/images/{alias}/{Path(file).name}" for alias, each in images.items() for file in each}
    made = tmp_path_factory.mktemp("made")
    files |= {_xfs_image(made): "/images/xfs.zst", _contract(made): "/images/contract.tar"}
    disk, kernel = build_disk(CACHE / f"{unique('vm-root')}.img", files=files)
    try:
        with StockHost(disk, kernel) as machine:
            machine.check("pylxc", "admin", "units", "--install", timeout=300)
            for alias, each in images.items():
                paths = [f"/images/{alias}/{Path(file).name}" for file in each]
                machine.check("pylxc", "image", "import", *paths, "--alias", alias, timeout=300)
            yield machine
    finally:
        for leftover in (disk, kernel, disk.with_suffix(".console")):
            leftover.unlink(missing_ok=True)


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
