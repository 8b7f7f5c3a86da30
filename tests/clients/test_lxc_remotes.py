"""`pylxc remote` beside `lxc remote`: same words, same answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import ROOT

Both = Callable[..., tuple["subprocess.CompletedProcess[str]", "subprocess.CompletedProcess[str]"]]
# What the two ship with is not the same; tests use what they add.
ADDED = {"addr": "https://127.0.0.1:1/m", "protocol": "simplestreams", "public": True}


@pytest.fixture
def both(tmp_path: Path, need: Callable[..., None]) -> Both:
    """Run the words by `lxc` and by `pylxc`, each on settings that have the remote `m` besides what ships."""
    need("lxc")
    for directory in ("lxc", "pylxc", "site"):
        (tmp_path / directory).mkdir()
    (tmp_path / "lxc/config.yml").write_text(json.dumps({"default-remote": "local", "remotes": {"m": ADDED}}))
    (tmp_path / "pylxc/config.json").write_text(json.dumps({"remotes": {"m": ADDED}}))
    env = {
        **os.environ,
        "LXD_CONF": str(tmp_path / "lxc"),
        "LXD_DIR": str(tmp_path),
        "PYLXC_CONF": str(tmp_path / "pylxc"),
        "PYLXC_GLOBAL_CONF": str(tmp_path / "site"),
        "PYTHONPATH": str(ROOT / "manager"),
    }

    def run(*words: str) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
        commands = (["lxc", *words], [sys.executable, "-m", "pylxc.cli.main", *words])
        theirs, ours = (
            subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            for command in commands
        )
        return theirs, ours

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["get-default"],
        ["switch", "m"],
        ["set-default", "m"],
        ["switch", "nope"],
        ["rename", "m", "n"],
        ["rename", "m", "local"],
        ["rename", "local", "n"],
        ["rename", "nope", "n"],
        ["remove", "m"],
        ["rm", "local"],
        ["remove", "nope"],
        ["set-url", "m", "https://127.0.0.1:1/other"],
        ["set-url", "local", "https://127.0.0.1:1"],
        ["set-url", "nope", "https://127.0.0.1:1"],
        ["add", "m", "https://127.0.0.1:1"],
        ["add", "local", "https://127.0.0.1:1"],
        ["add", "a:b", "https://127.0.0.1:1"],
        ["add", "n", "http://127.0.0.1:1"],
        ["add", "n", "http://127.0.0.1:1", "--protocol=simplestreams"],
        ["add", "n", "https://127.0.0.1:1", "--protocol=ftp"],
    ],
    ids="-".join,
)
def test_same_answer(both: Both, words: list[str]) -> None:
    theirs, ours = both("remote", *words)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    for words_then in (["get-default"], ["list", "-f", "csv"]):
        theirs, ours = both("remote", *words_then)
        kept = [
            [line for line in run.stdout.splitlines() if line.split(",")[0].split(" ")[0] in {"local", "m", "n"}]
            for run in (theirs, ours)
        ]
        assert kept[1] == kept[0]


@pytest.mark.parametrize("form", ["table", "csv", "compact", "json", "yaml"])
def test_same_list(both: Both, form: str) -> None:
    theirs, ours = both("remote", "list", "--format", form)
    if form == "json":
        listed = [json.loads(run.stdout) for run in (theirs, ours)]
        assert listed[1]["m"] == listed[0]["m"]
        assert listed[1]["local"] | {"Protocol": ""} == listed[0]["local"]
    else:
        lines = [" ".join(line.split()) for line in ours.stdout.splitlines()]
        for line in theirs.stdout.splitlines()[:4]:
            if "ubuntu" not in line and "images" not in line and "---" not in line:
                assert " ".join(line.split()) in lines
