"""Wheel and editable install are complete: code, recipes, profiles, migrations, and both commands run from them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ("images", "profiles", "migrations")


def _expected() -> set[str]:
    """Return what git has of the package, under the names that the wheel gives it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "manager/pylxc", *DATA],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    names = {name for name in listed if (ROOT / name).exists()}
    return {name.removeprefix("manager/") if name.startswith("manager/") else f"pylxc/_data/{name}" for name in names}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel the way a release does: from the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(out.glob("*.whl"))


def test_wheel_has_every_file(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    scripts = {name for name in names if ".data/scripts/" in name}
    assert {name.rpartition("/")[2] for name in scripts} == {"pylxc"}
    assert names - scripts == _expected()


@pytest.mark.parametrize("kind", DATA)
def test_wheel_finds_its_data(wheel: Path, kind: str, tmp_path: Path) -> None:
    _check_data(kind, tmp_path, path=str(_unpacked(wheel, tmp_path)))


@pytest.mark.parametrize("kind", DATA)
def test_editable_install_finds_its_data(kind: str, tmp_path: Path) -> None:
    _check_data(kind, tmp_path, path=None)


def _unpacked(wheel: Path, tmp_path: Path) -> Path:
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    return target


def _run(code: list[str], tmp_path: Path, path: str | None) -> str:
    env = {"PATH": "/usr/bin:/bin", "PYLXC_DIR": str(tmp_path / "state")}
    if path:
        env["PYTHONPATH"] = path
    result = subprocess.run([sys.executable, *code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _files(directory: Path) -> set[str]:
    found = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(directory)) for path in found}


def _check_data(kind: str, tmp_path: Path, path: str | None) -> None:
    code = f"import pylxc; from pylxc.resources import resource_dir; print(pylxc.__file__, resource_dir({kind!r}))"
    package, directory = _run(["-c", code], tmp_path, path).split()
    assert package.startswith(path or str(ROOT))
    assert _files(Path(directory)) == _files(ROOT / kind) != set()


@pytest.mark.parametrize("module", ["pylxc.cli.main", "pylxc.daemon.main"])
def test_commands_run_from_the_wheel(wheel: Path, module: str, tmp_path: Path) -> None:
    assert "usage" in _run(["-m", module, "--help"], tmp_path, str(_unpacked(wheel, tmp_path))).lower()
