"""The hot commands start fast because they import little: this keeps it so."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "re enum typing argparse json socket subprocess pathlib dataclasses asyncio rich yaml http.client contextlib"


@pytest.mark.parametrize("command", ["exec", "list", "start", "stop", "file", "config"])
def test_a_hot_command_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'manager'); before = set(sys.modules)\n"
        f"from pylxc.cli.main import find; find({command!r})\n"
        "import pylxc.client.instances\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) & set(HEAVY.split()) == set()
