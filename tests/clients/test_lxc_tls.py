"""Debian's `lxc` on another host: it comes to be trusted, and works as on the socket."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import ADDRESS, Identity
from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.wait import until

Lxc = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(need: Callable[..., None], module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    """Return a daemon that listens, with a pool, the image busybox and the project `own`."""
    need("lxc")
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    module_daemon.lxc("config", "set", "core.https_address", ADDRESS)
    module_daemon.import_image("busybox", busybox_files)
    features = ("-c", "features.images=false", "-c", "features.profiles=false")
    module_daemon.lxc("project", "create", "own", *features)
    return module_daemon


@pytest.fixture
def client(server: Daemon, tmp_path: Path) -> Iterator[Lxc]:
    """Run `lxc ARGS` as on another host: it has no socket, and settings of its own."""
    namespace = server.netns
    assert namespace
    env = {**os.environ, "LXD_CONF": str(tmp_path), "LXD_DIR": str(tmp_path / "nothing")}

    def run(*args: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        options = {"env": env, "timeout": 60, "capture_output": True, "text": True, **options}
        result = subprocess.run(namespace.command("lxc", *args), check=False, **options)
        assert not check or result.returncode == 0, f"lxc {args}: {result.stdout}{result.stderr}"
        return result

    yield run
    for url in server.request("GET", "/1.0/certificates"):
        server.request("DELETE", url)


@pytest.fixture
def trusted(server: Daemon, client: Lxc) -> Lxc:
    """Return a client that has the server as the remote `far`."""
    client("remote", "add", "far", token(server, unique("t")))
    return client


def token(server: Daemon, name: str, *options: str) -> str:
    """Return a join token, as `lxc` on the server's host makes it."""
    return server.lxc("config", "trust", "add", "--name", name, *options).stdout.splitlines()[-1]


def test_by_token(server: Daemon, client: Lxc) -> None:
    secret = token(server, "laptop")
    listed = server.lxc("config", "trust", "list-tokens", "--format", "csv").stdout
    assert f"laptop,{secret}" in listed
    client("remote", "add", "far", secret)
    assert "laptop" in server.lxc("config", "trust", "list", "--format", "csv").stdout
    assert client("list", "far:", "--format", "json").stdout.strip() == "[]"
    assert "laptop" not in server.lxc("config", "trust", "list-tokens", "--format", "csv").stdout
    again = client("remote", "add", "again", secret, check=False)
    assert again.returncode == 1


def test_by_password(server: Daemon, client: Lxc) -> None:
    server.lxc("config", "set", "core.trust_password", "sesame")
    wrong = client("remote", "add", "far", f"https://{ADDRESS}", "--accept-certificate", "--password", "x", check=False)
    assert wrong.returncode == 1
    assert "not authorized" in wrong.stderr
    client("remote", "add", "far", f"https://{ADDRESS}", "--accept-certificate", "--password", "sesame")
    assert "auth: trusted" in client("info", "far:").stdout
    assert server.lxc("config", "get", "core.trust_password").stdout.strip() == "true"
    server.lxc("config", "unset", "core.trust_password")


def test_revoking_a_token(server: Daemon, client: Lxc) -> None:
    secret = token(server, "gone")
    server.lxc("config", "trust", "revoke-token", "gone")
    assert client("remote", "add", "far", secret, check=False).returncode == 1
    assert server.request("GET", "/1.0/certificates") == []


def test_trust_commands(server: Daemon, trusted: Lxc, tmp_path: Path) -> None:
    identity = Identity(tmp_path, "file")
    trusted("config", "trust", "add", "far:", identity.certificate_file, "--restricted", "--projects", "own")
    short = identity.fingerprint[:12]
    assert short in trusted("config", "trust", "list", "far:").stdout
    shown = trusted("config", "trust", "show", f"far:{short}").stdout
    assert "restricted: true" in shown
    trusted("config", "trust", "edit", f"far:{short}", input=shown.replace("restricted: true", "restricted: false"))
    assert "restricted: false" in trusted("config", "trust", "show", f"far:{short}").stdout
    trusted("config", "trust", "remove", f"far:{short}")
    assert short not in server.lxc("config", "trust", "list").stdout


def test_daily_work(server: Daemon, trusted: Lxc, tmp_path: Path) -> None:
    name = unique("c")
    trusted("launch", "far:busybox", f"far:{name}")
    try:
        assert name in trusted("list", "far:", "--format", "csv", "-c", "ns").stdout
        assert (
            trusted("exec", f"far:{name}", "--", "sh", "-c", "cat; exit 7", input="through", check=False).returncode
            == 7
        )
        assert trusted("exec", f"far:{name}", "--", "cat", input="through").stdout == "through"
        there, back = tmp_path / "there", tmp_path / "back"
        there.write_bytes(os.urandom(3 << 20))
        trusted("file", "push", str(there), f"far:{name}/root/file")
        trusted("file", "pull", f"far:{name}/root/file", str(back))
        assert back.read_bytes() == there.read_bytes()
        trusted("config", "set", f"far:{name}", "user.note=over TLS")
        assert trusted("config", "get", f"far:{name}", "user.note").stdout.strip() == "over TLS"
        trusted("snapshot", f"far:{name}", "snap")
        trusted("stop", "--force", f"far:{name}")
    finally:
        trusted("delete", "--force", f"far:{name}")


def test_monitor(server: Daemon, trusted: Lxc, tmp_path: Path) -> None:
    assert server.netns
    env = {**os.environ, "LXD_CONF": str(tmp_path), "LXD_DIR": str(tmp_path / "nothing")}
    command = server.netns.command("lxc", "monitor", "far:", "--type", "lifecycle", "--format", "json")
    with (tmp_path / "events").open("w+") as out, subprocess.Popen(command, env=env, stdout=out) as monitor:
        try:

            def heard() -> bool:
                trusted("config", "set", "far:", "user.note=1")
                trusted("config", "unset", "far:", "user.note")
                return "config-updated" in (tmp_path / "events").read_text()

            until(heard, "an event")
        finally:
            monitor.terminate()


def test_restricted(server: Daemon, client: Lxc) -> None:
    secret = token(server, "guest", "--restricted", "--projects", "own")
    client("remote", "add", "far", secret, "--project", "own")
    name = unique("c")
    client("launch", "far:busybox", f"far:{name}")
    try:
        assert client("exec", f"far:{name}", "--", "echo", "works").stdout == "works\n"
        assert name in client("list", "far:", "--format", "csv").stdout
    finally:
        client("delete", "--force", f"far:{name}")
    for denied in (("list", "far:", "--project", "default"), ("config", "set", "far:", "user.x=1")):
        assert client(*denied, check=False).returncode == 1
    assert client("project", "list", "far:", "--format", "csv").stdout.startswith("own")
