"""`pylxc` on another host than the server: it comes to be trusted, and works as on the socket."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import ADDRESS, Identity
from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.wait import until

Pylxc = Callable[..., subprocess.CompletedProcess[Any]]


@pytest.fixture(scope="module")
def server(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    """Return a daemon that listens, with a pool, the image busybox and the project `own`."""
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    module_daemon.command("config", "set", f"core.https_address={ADDRESS}")
    module_daemon.import_image("busybox", busybox_files)
    features = ("-c", "features.images=false", "-c", "features.profiles=false")
    module_daemon.command("project", "create", "own", *features)
    return module_daemon


@pytest.fixture
def client(server: Daemon, tmp_path: Path) -> Iterator[Pylxc]:
    """Run `pylxc ARGS` as on another host: no daemon is there, none can be started, and settings are its own."""
    namespace = server.netns
    assert namespace
    env = {
        **server.env,
        "PYLXC_CONF": str(tmp_path / "conf"),
        "LXD_SOCKET": "/nowhere",
    }

    def run(*args: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[Any]:
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        options = {"env": env, "timeout": 60, "capture_output": True, "text": True, **options}
        command = namespace.command(sys.executable, "-m", "pylxc.cli.main", *args)
        result = subprocess.run(command, check=False, **options)
        assert not check or result.returncode == 0, f"pylxc {args}: {result.stdout}{result.stderr}"
        return result

    yield run
    for url in server.request("GET", "/1.0/certificates"):
        server.request("DELETE", url)
    server.command("config", "unset", "core.trust_password", check=False)


@pytest.fixture
def trusted(server: Daemon, client: Pylxc) -> Pylxc:
    """Return a client that has the server as the remote `far`."""
    client("remote", "add", "far", token(server))
    return client


@pytest.fixture(scope="module")
def guest(server: Daemon) -> Iterator[str]:
    name = unique("g")
    server.command("launch", "busybox", name)
    yield name
    server.command("delete", "--force", name)


def token(server: Daemon, *options: str) -> str:
    made = server.command("config", "trust", "add", "--name", unique("t"), *options).stdout.splitlines()
    assert made[0].endswith("certificate add token:")
    return made[1]


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line in which a command was refused."""
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line.removeprefix("Error: ")


def test_by_token(server: Daemon, client: Pylxc, tmp_path: Path) -> None:
    secret = token(server)
    assert client("remote", "add", "far", secret).stdout == "Client certificate now trusted by server: far\n"
    conf = tmp_path / "conf"
    assert stat.S_IMODE(conf.stat().st_mode) == 0o700
    assert stat.S_IMODE((conf / "client.key").stat().st_mode) == 0o600
    assert (conf / "servercerts/far.crt").read_text() == server.request("GET", "/1.0")["environment"]["certificate"]
    assert f"far,https://{ADDRESS},lxd,tls,NO,NO,NO" in client("remote", "list", "-f", "csv").stdout
    assert client("list", "far:", "-f", "csv").returncode == 0
    assert client("remote", "add", "b", secret).stdout == ""  # is trusted already
    fields = {**json.loads(base64.b64decode(token(server))), "fingerprint": "0" * 64}
    forged = base64.b64encode(json.dumps(fields).encode()).decode()
    assert "is not that of the server" in refusal(client("remote", "add", "forged", forged, check=False))
    assert "forged" not in client("remote", "list").stdout


def test_by_password_and_prompts(server: Daemon, client: Pylxc) -> None:
    server.command("config", "set", "core.trust_password=sesame")
    assert (
        refusal(client("remote", "add", "far", ADDRESS, input="n\n", check=False))
        == "Server certificate NACKed by user"
    )
    wrong = client("remote", "add", "far", ADDRESS, input="y\nwrong\n", check=False)
    assert refusal(wrong) == "not authorized"
    assert "far" not in client("remote", "list", "-f", "csv").stdout
    fingerprint = server.request("GET", "/1.0")["environment"]["certificate_fingerprint"]
    asked = client("remote", "add", "far", ADDRESS, input=f"{fingerprint}\nsesame\n").stdout
    assert asked.startswith(
        f"Certificate fingerprint: {fingerprint}\nok (y/n/[fingerprint])? Admin password (or token) for far: "
    )
    client("remote", "remove", "far")
    client("remote", "add", "again", ADDRESS, "--accept-certificate")  # is trusted already
    client("list", "again:")


def test_a_changed_certificate_is_refused(server: Daemon, trusted: Pylxc, tmp_path: Path) -> None:
    pinned = tmp_path / "conf/servercerts/far.crt"
    own = pinned.read_text()
    pinned.write_text(Identity(tmp_path, "another").pem)
    for words in (("list", "far:"), ("exec", "far:c", "true"), ("monitor", "far:")):
        line = refusal(trusted(*words, check=False))
        assert line.startswith(
            f"The certificate of https://{ADDRESS} is not the one that was accepted (if it was changed"
        )
    pinned.write_text(own)
    trusted("list", "far:")


def test_a_server_that_does_not_answer(trusted: Pylxc) -> None:
    trusted("remote", "set-url", "far", "https://127.0.0.1:1")
    assert refusal(trusted("list", "far:", check=False)).startswith(
        "Failed to connect to https://127.0.0.1:1: Connection refused"
    )


def test_exec(trusted: Pylxc, guest: str) -> None:
    done = trusted("exec", f"far:{guest}", "--", "sh", "-c", "cat; echo err >&2; exit 7", input="through", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("through", "err\n", 7)
    assert trusted("exec", f"far:{guest}", "--", "nothing-there", check=False).returncode == 127
    size = 8 << 20
    big = trusted("exec", f"far:{guest}", "--", "head", "-c", str(size), "/dev/zero", text=False).stdout
    assert big == bytes(size)
    data = os.urandom(size)
    assert trusted("exec", f"far:{guest}", "--", "cat", input=data, text=False).stdout == data
    with open("/dev/full", "w") as full:
        lost = trusted(
            "exec", f"far:{guest}", "--", "id", capture_output=False, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert refusal(lost) == "No space left on device"


def test_exec_whose_reader_goes_away(trusted: Pylxc, guest: str) -> None:
    source, sink = os.pipe()
    os.close(source)
    done = trusted(
        "exec", f"far:{guest}", "--", "yes", capture_output=False, stdout=sink, stderr=subprocess.PIPE, check=False
    )
    os.close(sink)
    assert done.returncode in (1, 141)


def test_files(trusted: Pylxc, guest: str, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(9 << 20))
    trusted("file", "push", str(there), f"far:{guest}/root/file", "--mode", "0600")
    trusted("file", "pull", f"far:{guest}/root/file", str(back))
    assert back.read_bytes() == there.read_bytes()
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for number in range(20):
        (tree / f"sub/{number}").write_text(str(number))
    trusted("file", "push", "-r", str(tree), f"far:{guest}/root/")
    trusted("file", "pull", "-r", f"far:{guest}/root/tree", str(tmp_path / "copy"))
    assert (tmp_path / "copy/tree/sub/19").read_text() == "19"
    trusted("file", "delete", f"far:{guest}/root/file")
    assert "not found" in refusal(trusted("file", "pull", f"far:{guest}/root/file", "-", check=False)).lower()


def test_daily_work(trusted: Pylxc, tmp_path: Path) -> None:
    name, image = unique("c"), unique("i")
    trusted("launch", "far:busybox", f"far:{name}")
    try:
        assert f"{name},RUNNING" in trusted("list", "far:", "-f", "csv", "-c", "ns").stdout
        assert f"Name: {name}" in trusted("info", f"far:{name}").stdout
        trusted("config", "set", f"far:{name}", "user.note=1")
        assert trusted("config", "get", f"far:{name}", "user.note").stdout == "1\n"
        trusted("snapshot", f"far:{name}", "snap")
        trusted("stop", "-f", f"far:{name}")
        trusted("copy", f"far:{name}", f"far:{name}-copy")
        trusted("export", f"far:{name}", str(tmp_path / "backup"))
        trusted("rename", f"far:{name}-copy", f"{name}-renamed")
        trusted("delete", f"far:{name}", f"far:{name}-renamed")
        trusted("import", "far:", str(tmp_path / "backup"), name)
        trusted("publish", f"far:{name}", "far:", "--alias", image)
        trusted("image", "export", f"far:{image}", str(tmp_path / "image"))
        assert trusted("query", f"far:/1.0/instances/{name}").stdout
    finally:
        trusted("delete", "-f", f"far:{name}", check=False)
        trusted("image", "delete", f"far:{image}", check=False)
    for words in ("network list", "profile list", "storage list", "project list", "operation list", "image list",
                  "warning list", "version", "config show", "config trust list"):  # fmt: skip
        trusted(*words.split(), "far:")


def test_the_default_remote(trusted: Pylxc, guest: str) -> None:
    trusted("remote", "switch", "far")
    assert guest in trusted("list", "-f", "csv").stdout
    assert trusted("exec", guest, "--", "echo", "hi").stdout == "hi\n"
    trusted("image", "list", "recipe:")
    assert refusal(trusted("list", "local:", check=False))


def test_two_servers_in_one_command(trusted: Pylxc, server: Daemon, guest: str) -> None:
    assert "different servers" in refusal(trusted("launch", "far:busybox", "local:c", check=False))
    assert "different servers" in refusal(trusted("copy", f"far:{guest}", "local:c", check=False))


def test_monitor(server: Daemon, trusted: Pylxc, tmp_path: Path) -> None:
    namespace = server.netns
    assert namespace
    env = {**server.env, "PYLXC_CONF": str(tmp_path / "conf"), "LXD_SOCKET": "/nowhere"}
    command = namespace.command(sys.executable, "-m", "pylxc.cli.main", "monitor", "far:", "--type", "lifecycle")
    with (tmp_path / "events").open("w+") as out, subprocess.Popen(command, env=env, stdout=out) as monitor:
        try:

            def heard() -> bool:
                server.request("PATCH", "/1.0", {"config": {"user.note": unique("n")}})
                return "config-updated" in (tmp_path / "events").read_text()

            until(heard, "an event")
        finally:
            monitor.terminate()


def test_restricted(server: Daemon, client: Pylxc) -> None:
    client("remote", "add", "far", token(server, "--restricted", "--projects", "own"))
    name = unique("c")
    client("launch", "far:busybox", f"far:{name}")  # in its only project
    try:
        assert client("exec", f"far:{name}", "--", "echo", "works").stdout == "works\n"
        assert name in server.command("list", "--project", "own", "-f", "csv").stdout
    finally:
        client("delete", "-f", f"far:{name}")
    assert "restricted to its projects" in refusal(client("list", "far:", "--project", "default", check=False))
    assert refusal(client("config", "set", "far:", "user.x=1", check=False))


def test_trust_commands_are_lxcs(need: Callable[..., None], server: Daemon, trusted: Pylxc, tmp_path: Path) -> None:
    need("lxc")
    identity = Identity(tmp_path, "file")
    trusted("config", "trust", "add", "far:", identity.certificate_file, "--restricted", "--projects", "own")
    token(server)
    short = identity.fingerprint[:12]
    for words in (["list"], ["list", "-f", "csv"], ["list-tokens"], ["list-tokens", "-f", "csv"], ["show", short]):
        ours, theirs = server.command("config", "trust", *words).stdout, server.lxc("config", "trust", *words).stdout
        assert sorted(ours.split()) == sorted(theirs.split()), words
    for line in server.command("config", "trust", "list-tokens", "-f", "csv").stdout.splitlines():
        revoked = trusted("config", "trust", "revoke-token", "far:", line.split(",")[0])
        assert revoked.stdout.startswith("Certificate add token for")
    assert server.command("config", "trust", "list-tokens", "-f", "csv").stdout == ""
    assert "There is no token" in refusal(trusted("config", "trust", "revoke-token", "far:", "nobody", check=False))
    shown = trusted("config", "trust", "show", f"far:{short}").stdout
    trusted("config", "trust", "edit", f"far:{short}", input=shown.replace("restricted: true", "restricted: false"))
    assert server.request("GET", f"/1.0/certificates/{short}")["restricted"] is False
    trusted("config", "trust", "remove", f"far:{short}")
    assert "not found" in refusal(trusted("config", "trust", "show", f"far:{short}", check=False))
