"""The hot commands start fast because they import little: this keeps it so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("settings", [None, '{"remotes": {"m": {"addr": "https://m"}}, "default-remote": "local"}'])
def test_a_name_on_the_local_server_imports_nothing_heavy(settings: str | None, tmp_path: Path) -> None:
    if settings:
        (tmp_path / "config.json").write_text(settings)
    code = (
        "import sys; sys.path.insert(0, 'manager'); before = set(sys.modules)\n"
        "from pylxc.cli.grammar import Parser\n"
        "from pylxc.cli.main import ROOT, find\n"
        "from pylxc.cli.session import Session\n"
        "args = Parser(find, ROOT).parse(['exec', 'c01', 'true'])\n"
        "assert [Session(args).name(text) for text in ('c01', 'local:c01')] == ['c01', 'c01']\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYLXC_CONF": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) & {*HEAVY.split(), "pylxc.cli.remotes"} == set()
