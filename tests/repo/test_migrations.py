"""The migrations lead to the models: a new database is what the models say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _alembic(tmp_path: Path, *args: str) -> None:
    (tmp_path / "database").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "alembic", *args]
    env = {**os.environ, "PYLXC_DIR": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    _alembic(tmp_path, "upgrade", "head")
    _alembic(tmp_path, "check")


def test_there_is_one_head() -> None:
    command = [sys.executable, "-m", "alembic", "heads"]
    heads = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(heads.splitlines()) == 1
