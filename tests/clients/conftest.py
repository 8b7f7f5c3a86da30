"""Debian's unmodified `lxc` 5.0.2 (package lxd-client) against a running pylxcd.

PYLXC_TEST_REFERENCE=DIR runs the same tests against the LXD on DIR instead: what they ask for is what LXD does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon, unique

REFERENCE = os.environ.get("PYLXC_TEST_REFERENCE", "")

Lxc = Callable[..., subprocess.CompletedProcess[Any]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def lxc_daemon(request: pytest.FixtureRequest, need: Callable[..., None]) -> Daemon | None:
    """Return pylxcd, None against the reference."""
    need("lxc")
    if REFERENCE:
        return None
    daemon: Daemon = request.getfixturevalue("module_daemon")
    return daemon


@pytest.fixture(scope="module")
def lxc_env(lxc_daemon: Daemon | None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment in which `lxc` finds the server."""
    directory = lxc_daemon.dir if lxc_daemon else REFERENCE
    env = {k: v for k, v in os.environ.items() if k not in ("LXD_SOCKET", "PYLXC_DIR")}
    return {**env, "LXD_DIR": directory, "LXD_CONF": str(tmp_path_factory.mktemp("lxc")), "EDITOR": "false"}


@pytest.fixture(scope="module")
def lxc(lxc_env: dict[str, str]) -> Lxc:
    """Run `lxc ARGS`; `check=False` takes a failure, `input` is given on stdin."""

    def run(*args: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options = {"text": True, "capture_output": True, "timeout": 120, **options}
        result = subprocess.run(["lxc", *args], env=lxc_env, check=False, **options)
        assert not check or result.returncode == 0, f"lxc {' '.join(args)}: {result.stdout}{result.stderr}"
        return result

    return run


@pytest.fixture(scope="module")
def image(lxc: Lxc, busybox_files: list[str]) -> Iterator[str]:
    """Import the busybox image with `lxc` and return its alias."""
    alias = unique("busybox")
    lxc("image", "import", *busybox_files, "--alias", alias)
    yield alias
    lxc("image", "delete", alias)


@pytest.fixture(scope="module")
def guest(lxc: Lxc, image: str) -> Iterator[str]:
    """Return a running container that the tests of a module share."""
    name = unique("g")
    lxc("launch", image, name)
    yield name
    lxc("delete", "--force", name)


@pytest.fixture
def stopped(lxc: Lxc, image: str) -> Iterator[str]:
    """Return a stopped container of the test's own."""
    name = unique("s")
    lxc("init", image, name)
    yield name
    lxc("delete", "--force", name, check=False)


@pytest.fixture(params=["lxc", "pylxc"])
def run(request: pytest.FixtureRequest, lxc: Lxc, lxc_daemon: Daemon | None) -> Run:
    """Run a command of either client."""
    if request.param == "lxc":
        return lxc
    if lxc_daemon is None:
        pytest.skip("the reference has no pylxc")
    return lxc_daemon.command
