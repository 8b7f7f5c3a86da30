"""`pylxc remote`, and what commands make of the remote in a name, against a running daemon."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.wait import until


@pytest.fixture(autouse=True)
def settings(daemon: Daemon) -> Iterator[Path]:
    """Let each test begin with no settings of the user's."""
    path = Path(f"{daemon.dir}/client")
    yield path / "config.json"
    shutil.rmtree(path, ignore_errors=True)


def refusal(daemon: Daemon, *words: str) -> str:
    """Return the one line in which a command is refused."""
    result = daemon.command(*words, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def test_names_without_a_remote_are_on_the_default_one(daemon: Daemon, settings: Path) -> None:
    assert daemon.command("remote", "get-default").stdout == "local\n"
    assert not settings.exists()
    daemon.command("remote", "switch", "recipe")
    assert daemon.command("remote", "get-default").stdout == "recipe\n"
    assert "recipe (current),,recipe,none,YES,YES,NO" in daemon.command("remote", "list", "-f", "csv").stdout
    assert "debian/12" in daemon.command("image", "list", "-c", "L", "-f", "csv").stdout
    holds = 'The remote "recipe" holds images only'
    for words in (["list"], ["start", "c01"], ["start", "--all"], ["config", "show"], ["network", "list"], ["info"],
                  ["exec", "c01", "true"], ["file", "pull", "c01/x", "-"], ["launch", "debian/12"]):  # fmt: skip
        assert refusal(daemon, *words).startswith(holds), words
    assert "Remotes" not in refusal(daemon, "image", "delete", "debian/12")
    daemon.command("list", "local:")
    daemon.command("--force-local", "list")
    assert daemon.command("image", "list", "local:", "-f", "csv").stdout == ""


def test_a_remote_that_is_not_there(daemon: Daemon) -> None:
    for words in (["list", "nowhere:"], ["launch", "nowhere:x", "c01"], ["image", "list", "nowhere:"],
                  ["image", "info", "nowhere:x"], ["exec", "nowhere:c01", "true"]):  # fmt: skip
        assert refusal(daemon, *words).startswith('The remote "nowhere" doesn\'t exist'), words


def test_images_elsewhere_cannot_be_changed(daemon: Daemon) -> None:
    for words in (["delete"], ["edit"], ["refresh"], ["export"]):
        assert "can only be launched and copied" in refusal(daemon, "image", *words, "ubuntu:22.04")
    assert "images only" in refusal(daemon, "image", "alias", "delete", "ubuntu:22.04")
    assert "images only" in refusal(daemon, "image", "copy", "recipe:busybox", "ubuntu:")
    assert "name for the target" in refusal(daemon, "image", "copy", "recipe:busybox", "local:x")


def test_damaged_settings_are_one_line(daemon: Daemon, settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text("{")
    assert refusal(daemon, "list").startswith(f"{settings} is not valid JSON")
    daemon.command("list", "--force-local")


def test_a_server_that_does_not_answer_is_not_added(daemon: Daemon, settings: Path) -> None:
    url = "https://127.0.0.1:1/x"
    assert (
        refusal(daemon, "remote", "add", "m", url, "--public")
        == "https://127.0.0.1:1 does not answer: Connection refused"
    )
    assert "does not answer" in refusal(daemon, "remote", "add", "m", "127.0.0.1:1")
    assert "Sockets of this host" in refusal(daemon, "remote", "add", "m", "unix:///x")
    assert not settings.exists()


def test_two_changes_at_once(daemon: Daemon, settings: Path) -> None:
    settings.parent.mkdir()
    fields = {"addr": "https://x", "public": True}
    settings.write_text(json.dumps({"remotes": {"m": fields}}))
    lock = os.open(settings.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(daemon.command_line("remote", "rename", "m", "n"), env=daemon.env) as rename:
            waits = f"-> FLOCK  ADVISORY  WRITE {rename.pid} "
            until(lambda: rename.poll() is not None or waits in Path("/proc/locks").read_text(), "it waits")
            settings.write_text(json.dumps({"remotes": {"m": fields, "late": fields}}))
            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)
    assert rename.returncode == 0
    assert sorted(json.loads(settings.read_text())["remotes"]) == ["late", "n"]


def test_completion_knows_the_remotes(daemon: Daemon) -> None:
    def ask(*words: str) -> list[str]:
        return [line.split("\t")[0] for line in daemon.command("_complete", "fish", "--", *words).stdout.splitlines()]

    assert ask("remote", "rename", "u") == ["ubuntu", "ubuntu-daily"]
    assert ask("launch", "ubuntu") == ["ubuntu:", "ubuntu-daily:"]
    assert "recipe:debian/12" in ask("image", "copy", "rec")
    assert ask("image", "copy", "recipe:busybox", "l") == ["local:"]
