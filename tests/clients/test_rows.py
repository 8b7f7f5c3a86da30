"""Every command of Debian's `lxc`, flag by flag: what it prints and how it ends is what LXD 5.0.2 does.

rows/ROW.txt are transcripts that LXD itself has written, each of commands that belong together, which `# lxc WORDS` at
its top name. A line `$ COMMAND` is given to a shell; what it printed follows, and `! STATUS` where it failed. To write
them anew from the lines with `$`:

    PYLXC_TEST_REFERENCE=/var/lib/lxd PYLXC_TEST_RECORD=1 .venv/bin/pytest tests/clients/test_rows.py
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import REFERENCE, Lxc
from tests.support.daemon import POOL_AND_BRIDGE, Daemon

HERE = Path(__file__).parent
ROWS = sorted(path.stem for path in (HERE / "rows").glob("*.txt"))
RECORD = bool(REFERENCE and os.environ.get("PYLXC_TEST_RECORD"))

# Commands whose tests are elsewhere: what they begin with, and FILE::TEST or FILE.
ELSEWHERE = {
    "cluster": "",
    "config trust": "test_lxc_tls.py",
    "console": "test_lxc_exec.py::test_console_attach_and_detach",
    "monitor": "test_lxc_lifecycle.py::test_monitor_shows_lifecycle",
    "network acl": "",
    "network peer": "",
    "network zone": "",
    "project": "test_lxc_projects.py",
    "remote": "test_lxc_remotes.py",
    "warning": "test_lxc_objects.py::test_warnings",
}
"""An empty text: its resource is not there yet."""

_NOISE = re.compile(
    r"\s*$|.*(Retrieving image: |Remapping container|Transferring |Exporting the |Backing up |Importing |Image pack)"
)
_CHANGING = (
    (r"\x1b\[[0-9;?]*[a-zA-Z]", ""),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9a-f]{64}\b", "FINGERPRINT"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    (r"(?!0001|1970)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
    (r"\b\d{4}[-/]\d\d[-/]\d\d \d\d:\d\d(:\d\d)?( UTC)?", "DATE"),
    (r"\b10\.99\.\d+\.\d+", "ADDRESS"),
    (r"\bveth[a-z0-9]+", "VETH"),
    (r"\b\d+(\.\d+)?(kB|MB|GB|KiB|MiB|GiB|B)\b", "SIZE"),
    (r"-{3,}(\+-{3,})*", "---"),
    (r"[ \t]+", " "),
)


@pytest.fixture(scope="module")
def shell_env(
    lxc: Lxc, lxc_env: dict[str, str], lxc_daemon: Daemon | None, busybox_files: list[str]
) -> Iterator[dict[str, str]]:
    """Give the environment of the transcripts' commands: a dir pool `default`, `$BRIDGE` and the image `busybox`."""
    bridge = "pylxcbr0" if lxc_daemon else "lxdbr0"
    if lxc_daemon:
        config = {"ipv4.address": "10.99.0.1/22", "ipv4.nat": "false", "ipv6.address": "none"}
        networks = [{"name": bridge, "type": "bridge", "config": config}]
        lxc_daemon.command("admin", "init", "--preseed", input=json.dumps({**POOL_AND_BRIDGE, "networks": networks}))
    if not RECORD:
        lxc("image", "import", *busybox_files, "--alias", "busybox")
    yield {**lxc_env, "BRIDGE": bridge}
    if not RECORD:
        lxc("image", "delete", "busybox")


def transcript(lines: list[str], env: dict[str, str], directory: Path) -> tuple[list[str], list[str]]:
    """Run the commands in `lines` and return the transcript, and what those said that failed."""
    said, complaints = [], []
    for line in lines:
        if line.startswith("#"):
            said.append(line)
        if not line.startswith("$ "):
            continue
        ended = subprocess.run(
            ["sh", "-c", line[2:]],
            env=env,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said += [line, *normal(ended.stdout.replace(env["LXD_DIR"], "DIR").replace(env["BRIDGE"], "BRIDGE"))]
        if ended.returncode:
            complaints.append(f"{line}: {ended.stderr.strip()}")
            said.append(f"! {ended.returncode}")
    return said, complaints


def normal(text: str) -> list[str]:
    """Return lines without progress, and with words for what is another each time."""
    for pattern, word in _CHANGING:
        text = re.sub(pattern, word, text)
    return [line.rstrip() for line in re.split(r"[\r\n]", text) if not _NOISE.match(line)]


@pytest.mark.parametrize("row", ROWS)
def test_row(shell_env: dict[str, str], row: str, tmp_path: Path) -> None:
    file = HERE / f"rows/{row}.txt"
    wanted = file.read_text().splitlines()
    found, complaints = transcript(wanted, shell_env, tmp_path)
    if RECORD:
        file.write_text("\n".join(found) + "\n")
    else:
        differences = difflib.unified_diff(wanted, found, "LXD", "pylxc", lineterm="", n=2)
        assert found == wanted, "\n".join([*differences, *complaints])


def test_every_command_has_a_row(lxc: Lxc) -> None:
    texts = "".join((HERE / f"rows/{row}.txt").read_text() for row in ROWS)
    covered = set(re.findall(r"(?m)^# lxc (.+)$", texts))
    commands = set(_commands(lxc, ()))
    assert covered <= commands
    missing = commands - covered
    assert not {one for one in missing if not any(f"{one} ".startswith(f"{words} ") for words in ELSEWHERE)}


def _commands(lxc: Lxc, words: tuple[str, ...]) -> Iterator[str]:
    """Yield the commands below `words` that have no commands below themselves."""
    text = lxc(*words, "--help", "--sub-commands").stdout if words else lxc("--help", "--all").stdout
    below = re.findall(r"(?m)^  ([a-z-]+) ", text.partition("Available Commands:")[2].partition("\n\n")[0])
    for word in below:
        if word not in ("help", "completion"):
            yield from _commands(lxc, (*words, word))
    if words and not below:
        yield " ".join(words)


@pytest.mark.parametrize("place", [place for place in ELSEWHERE.values() if place])
def test_tests_elsewhere_exist(place: str) -> None:
    file, _, test = place.partition("::")
    names = {node.name for node in ast.parse((HERE / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert not test or test in names
