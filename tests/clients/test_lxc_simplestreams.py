"""Debian's `lxc` with an image server of its own settings, launching from it through the daemon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.clients.conftest import Lxc
from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.simplestreams import Simplestreams, another_version
from tests.support.tls import Authority


@pytest.fixture(scope="module")
def module_daemon(authority: Authority, need: Callable[..., None]) -> Iterator[Daemon]:
    """A daemon that trusts the tests' authority, with a pool and no network."""
    need("lxc")
    daemon = Daemon()
    daemon.env["SSL_CERT_FILE"] = authority.file
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    yield daemon
    problems = daemon.close()
    assert not problems, problems


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, module_daemon: Daemon, authority: Authority, busybox_files: list[str]
) -> Iterator[Simplestreams]:
    """A server with an image for either of two architectures."""
    server = Simplestreams(tmp_path_factory.mktemp("server"), authority, module_daemon.netns)
    server.add("20240101", another_version(busybox_files, unique("jammy")))
    arm = "com.ubuntu.cloud:server:22.04:arm64"
    server.add("20240102", another_version(busybox_files, unique("arm")), product=arm, arch="arm64")
    server.publish()
    yield server
    server.close()


@pytest.fixture(scope="module")
def lxc(module_daemon: Daemon, server: Simplestreams) -> Lxc:
    """Run `lxc ARGS` where the server can be reached, its remote called `mine`."""
    assert module_daemon.netns
    netns = module_daemon.netns

    def run(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            netns.command("lxc", *args),
            env={**module_daemon.env, "LXD_DIR": module_daemon.dir},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or result.returncode == 0, f"lxc {' '.join(args)}: {result.stdout}{result.stderr}"
        return result

    run("remote", "add", "mine", server.url, "--protocol=simplestreams")
    module_daemon.command("remote", "add", "mine", server.url, "--protocol=simplestreams")
    return run


@pytest.mark.parametrize("form", ["table", "csv", "compact"])
@pytest.mark.parametrize(
    "words", [["list", "mine:"], ["list", "mine:", "22.04", "arch=amd64"], ["alias", "list", "mine:"]]
)
def test_pylxc_lists_what_lxc_lists(lxc: Lxc, daemon: Daemon, words: list[str], form: str) -> None:
    theirs = lxc("image", *words, "--format", form).stdout
    assert daemon.command("image", *words, "--format", form).stdout == theirs
    assert "22.04" in theirs or "jammy" in theirs


def test_pylxc_shows_what_lxc_shows(lxc: Lxc, daemon: Daemon) -> None:
    for command in ("info", "show"):
        theirs, ours = lxc("image", command, "mine:22.04").stdout, daemon.command("image", command, "mine:22.04").stdout
        assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


def test_launch(lxc: Lxc, daemon: Daemon, name: str) -> None:
    lxc("launch", "mine:22.04", name)
    assert daemon.instances()[name] == "Running"
    fingerprint = lxc("config", "get", name, "volatile.base_image").stdout.strip()
    info = lxc("image", "info", fingerprint).stdout.splitlines()
    assert {"Cached: yes", "    Protocol: simplestreams", "    Alias: 22.04"} <= set(info)
    lxc("init", f"mine:{fingerprint[:12]}", f"{name}b")
    assert lxc("config", "get", f"{name}b", "volatile.base_image").stdout.strip() == fingerprint


@pytest.mark.parametrize(("image", "text"), [("nope", "has no image 'nope'"), ("22.04/arm64", "is for aarch64")])
def test_what_cannot_be_launched(lxc: Lxc, daemon: Daemon, name: str, image: str, text: str) -> None:
    refused = lxc("init", f"mine:{image}", name, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: Failed instance creation: ")
    assert text in refused.stderr
    assert name not in daemon.instances()


def test_copy_and_refresh(lxc: Lxc, daemon: Daemon) -> None:
    alias = unique("own")
    lxc("image", "copy", "mine:22.04", "local:", "--alias", alias, "--copy-aliases", "--auto-update", "--public")
    info = lxc("image", "info", alias).stdout.splitlines()
    assert {"    - 22.04", "    - jammy/amd64", "Public: yes", "Auto update: enabled", "Cached: no"} <= set(info)
    assert "Image already up to date." in lxc("image", "refresh", alias).stdout
    other = unique("own")
    lxc("image", "copy", "mine:22.04", "local:", "--alias", other)
    assert lxc("image", "info", other).stdout.splitlines()[0] == info[0]
    assert "has no image 'nope'" in lxc("image", "copy", "mine:nope", "local:", check=False).stderr
