"""Every command of Debian's `lxc`, flag by flag: what it prints and how it ends is what LXD 5.0.2 does.

rows/ROW.txt are transcripts that LXD itself has written, each of commands that belong together, which `# lxc WORDS` at
its top name. A line `$ COMMAND` is given to a shell; what it printed follows, and `! STATUS` where it failed. To write
them anew from the lines with `$`:

    PYLXC_TEST_REFERENCE=/var/lib/lxd PYLXC_TEST_RECORD=1 .venv/bin/pytest tests/clients/test_rows.py

`pylxc` is given the same commands, under the name `lxc`. Where it differs from LXD's client on purpose
(docs/compatibility.md), rows/pylxc/ROW.diff says so, line by line. To write those anew, and then to read every line of
what has changed:

    PYLXC_TEST_RECORD=1 .venv/bin/pytest tests/clients/test_rows.py; git diff tests/clients/rows/pylxc
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylxc import __version__
from tests.clients.conftest import REFERENCE, Lxc
from tests.support.daemon import POOL_AND_BRIDGE, Daemon

HERE = Path(__file__).parent
ROWS = sorted(path.stem for path in (HERE / "rows").glob("*.txt"))
RECORD = bool(REFERENCE and os.environ.get("PYLXC_TEST_RECORD"))
RECORD_DIFFERENCES = bool(not REFERENCE and os.environ.get("PYLXC_TEST_RECORD"))

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
    (r"(?<![.\w])[0-9a-f]{12}\b", "SHORT"),
    (r"\b\d{8}_\d\d:\d\d\b", "SERIAL"),
    (r"(?<=creation_date: )\d{10}\b", "SECONDS"),
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
def shell_env(lxc: Lxc, lxc_env: dict[str, str], lxc_daemon: Daemon | None) -> Iterator[dict[str, str]]:
    """Give the environment of the transcripts' commands: a dir pool `default` and `$BRIDGE`."""
    bridge = "pylxcbr0" if lxc_daemon else "lxdbr0"
    if lxc_daemon:
        config = {"ipv4.address": "10.99.0.1/22", "ipv4.nat": "false", "ipv6.address": "none"}
        networks = [{"name": bridge, "type": "bridge", "config": config}]
        lxc_daemon.command("admin", "init", "--preseed", input=json.dumps({**POOL_AND_BRIDGE, "networks": networks}))
    yield {**lxc_env, "BRIDGE": bridge}
    if not RECORD:
        lxc("image", "delete", "busybox")


@pytest.fixture
def image_of_rows(shell_env: dict[str, str], lxc: Lxc, busybox_files: list[str]) -> None:
    """Have the image `busybox`, which a row deletes and may fail to bring back."""
    if not RECORD and not lxc("image", "list", "busybox", "-f", "csv").stdout:
        lxc("image", "import", *busybox_files, "--alias", "busybox")


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


@pytest.fixture(scope="module")
def pylxc_env(
    shell_env: dict[str, str], lxc_daemon: Daemon | None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the same environment with `pylxc` in place of `lxc`."""
    if lxc_daemon is None:
        pytest.skip("the reference has no pylxc")
    directory = tmp_path_factory.mktemp("pylxc")
    program = directory / "lxc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pylxc.cli.main "$@"\n')
    program.chmod(0o755)
    own = {name: lxc_daemon.env[name] for name in ("PYLXC_DIR", "PYLXC_CONF", "PYTHONPATH")}
    return {**shell_env, **own, "PYLXC_GLOBAL_CONF": str(directory), "PATH": f"{directory}:{shell_env['PATH']}"}


@pytest.mark.usefixtures("image_of_rows")
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


@pytest.mark.usefixtures("image_of_rows")
@pytest.mark.parametrize("row", ROWS)
def test_row_by_pylxc(pylxc_env: dict[str, str], row: str, tmp_path: Path) -> None:
    wanted = (HERE / f"rows/{row}.txt").read_text().splitlines()
    found, complaints = transcript(wanted, pylxc_env, tmp_path)
    found = [line.replace(f"version: {__version__}", "version: OWN") for line in found]
    differences = list(difflib.unified_diff(wanted, found, "LXD", "pylxc", lineterm="", n=1))
    file = HERE / f"rows/pylxc/{row}.diff"
    if not RECORD_DIFFERENCES:
        recorded = file.read_text().splitlines() if file.exists() else []
        changed = difflib.unified_diff(recorded, differences, "recorded", "now", lineterm="", n=2)
        assert differences == recorded, "\n".join([*changed, *complaints])
    elif differences:
        file.write_text("\n".join(differences) + "\n")
    else:
        file.unlink(missing_ok=True)


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
