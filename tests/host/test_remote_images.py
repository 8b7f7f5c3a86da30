"""What `pylxc` does with images of public servers: a simplestreams tree on loopback, laid out as Ubuntu's."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.daemon import POOL_AND_BRIDGE, Daemon, unique
from tests.support.simplestreams import Simplestreams, another_version
from tests.support.terminal import Terminal
from tests.support.tls import Authority
from tests.support.wait import until
from tests.support.webserver import WebServer

NOBLE = "com.ubuntu.cloud:server:24.04:amd64"
ALPINE = "alpine:3.19:amd64:default"


@pytest.fixture(scope="module")
def module_daemon(authority: Authority) -> Iterator[Daemon]:
    """A daemon that trusts the tests' authority, with a pool and the bridge."""
    daemon = Daemon()
    daemon.env["SSL_CERT_FILE"] = authority.file
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_AND_BRIDGE})
    yield daemon
    problems = daemon.close()
    assert not problems, problems


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, module_daemon: Daemon, authority: Authority, busybox_files: list[str]
) -> Iterator[Simplestreams]:
    """A server with images that these tests only read, under the shipped remote `ubuntu`."""
    server = Simplestreams(tmp_path_factory.mktemp("server"), authority, module_daemon.netns)
    server.add("20240101", another_version(busybox_files, unique("jammy")))
    server.add(
        "20240102",
        another_version(busybox_files, unique("arm")),
        product="com.ubuntu.cloud:server:22.04:arm64",
        arch="arm64",
    )
    server.add("20240301", another_version(busybox_files, unique("noble")), product=NOBLE, aliases="24.04,noble")
    server.products[NOBLE].update(release="noble", version="24.04", release_title="24.04 LTS")
    server.add("20240401", another_version(busybox_files, unique("alpine")), product=ALPINE, aliases="alpine/3.19")
    server.products[ALPINE].update(release="3.19", version="3.19", release_title="3.19", os="Alpine")
    server.publish()
    module_daemon.command("remote", "set-url", "ubuntu", server.url)
    yield server
    server.close()


def fingerprint(server: Simplestreams, product: str = "com.ubuntu.cloud:server:22.04:amd64") -> str:
    """Return the fingerprint of the newest image of a product."""
    versions = server.products[product]["versions"]
    found: str = versions[max(versions)]["items"]["lxd.tar.xz"]["combined_squashfs_sha256"]
    return found


def lines(daemon: Daemon, *words: str) -> list[list[str]]:
    """Return the rows of a list."""
    return list(csv.reader(daemon.command(*words, "--format", "csv").stdout.splitlines()))


def refusal(daemon: Daemon, *words: str) -> str:
    """Return the one line in which a command is refused."""
    result = daemon.command(*words, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


# -- looking -------------------------------------------------------------------------------------------------------


def test_list(daemon: Daemon, server: Simplestreams) -> None:
    rows = lines(daemon, "image", "list", "ubuntu:")
    assert [row[0] for row in rows] == ["24.04 (3 more)", "alpine/3.19 (1 more)", "j (5 more)", "j/arm64 (2 more)"]
    assert rows[2][1:6] == [
        fingerprint(server)[:12], "yes", "ubuntu 22.04 LTS amd64 (release) (20240101)", "x86_64", "CONTAINER",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["22.04", "arch=amd64"], ["j (5 more)"]),
        (["22.04"], ["j (5 more)", "j/arm64 (2 more)"]),
        (["os=Alpine"], ["alpine/3.19 (1 more)"]),
        (["release=no.*"], ["24.04 (3 more)"]),
        (["arch=aarch64"], ["j/arm64 (2 more)"]),
        (["nothing"], []),
    ],
)
def test_filters(daemon: Daemon, server: Simplestreams, filters: list[str], found: list[str]) -> None:
    assert [row[0] for row in lines(daemon, "image", "list", "ubuntu:", *filters)] == found


def test_every_format(daemon: Daemon, server: Simplestreams) -> None:
    listed = json.loads(daemon.command("image", "list", "ubuntu:jammy", "-f", "json").stdout)
    assert [image["architecture"] for image in listed] == ["aarch64", "x86_64"]
    assert yaml.safe_load(daemon.command("image", "list", "ubuntu:noble", "-f", "yaml").stdout)[0]["public"] is True
    with Terminal(daemon.command_line("image", "list", "ubuntu:"), daemon.env, columns=90) as terminal:
        assert terminal.wait() == 0
        assert {len(line) for line in terminal.seen.splitlines()} == {90}


def test_info_show_and_aliases(daemon: Daemon, server: Simplestreams) -> None:
    info = daemon.command("image", "info", "ubuntu:22.04").stdout.splitlines()
    assert info[0] == f"Fingerprint: {fingerprint(server)}"
    assert "    - jammy/amd64" in info
    assert daemon.command("image", "info", f"ubuntu:{fingerprint(server)[:9]}").stdout.splitlines() == info
    assert yaml.safe_load(daemon.command("image", "show", "ubuntu:24.04").stdout)["properties"]["version"] == "24.04"
    assert daemon.command("image", "get-property", "ubuntu:24.04", "serial").stdout == "20240301\n"
    assert ["22.04", fingerprint(server)[:12], "CONTAINER", ""] in lines(daemon, "image", "alias", "list", "ubuntu:")
    assert [row[0] for row in lines(daemon, "image", "alias", "list", "ubuntu:", "alp")] == [
        "alpine/3.19",
        "alpine/3.19/amd64",
    ]


def test_what_a_server_has_not(daemon: Daemon, server: Simplestreams) -> None:
    for words in (["image", "info"], ["image", "show"], ["init"]):
        assert refusal(daemon, *words, "ubuntu:nope").endswith("has no image 'nope'")
        assert refusal(daemon, *words, "ubuntu:").startswith("The name of the image is missing")
    assert "is for aarch64" in refusal(daemon, "init", "ubuntu:22.04/arm64")
    assert refusal(daemon, "image", "copy", "ubuntu:nope", "local:").endswith("has no image 'nope'")


# -- fetching ------------------------------------------------------------------------------------------------------


def test_launch_through_the_shipped_remote(
    daemon: Daemon, server: Simplestreams, authority: Authority, debian12_files: list[str], name: str, tmp_path: Path
) -> None:
    debian = Simplestreams(tmp_path, authority, daemon.netns)
    try:
        debian.add("20240501", another_version(debian12_files, unique("debian")))
        debian.publish()
        daemon.command("remote", "set-url", "ubuntu", debian.url)
        daemon.command("launch", "ubuntu:22.04", name)
        system = ["exec", name, "--", "systemctl", "is-system-running"]
        until(lambda: daemon.command(*system, check=False).stdout == "running\n", "the system runs", 60)
        (image,) = json.loads(daemon.command("image", "list", fingerprint(debian), "-f", "json").stdout)
        assert (image["cached"], image["update_source"]["alias"]) == (True, "22.04")
        asked = len(debian.requests)
        daemon.command("init", "ubuntu:22.04", f"{name}b")
        assert [path for path in debian.paths()[asked:] if not path.endswith(".json")] == []
    finally:
        debian.close()
        daemon.command("remote", "set-url", "ubuntu", server.url)


@pytest.mark.parametrize("image", ["alpine/3.19", "alpine/3.19/amd64", "FINGERPRINT"])
def test_names_of_images(daemon: Daemon, server: Simplestreams, name: str, image: str) -> None:
    expected = fingerprint(server, ALPINE)
    daemon.command("init", f"ubuntu:{image.replace('FINGERPRINT', expected[:10])}", name)
    assert daemon.command("config", "get", name, "volatile.base_image").stdout == f"{expected}\n"
    assert daemon.command("config", "get", name, "image.os").stdout == "Alpine\n"


def test_images_of_the_default_remote(daemon: Daemon, server: Simplestreams, name: str) -> None:
    daemon.command("remote", "switch", "ubuntu")
    try:
        assert refusal(daemon, "init", "22.04", name).startswith('The remote "ubuntu" holds images only')
        daemon.command("init", "22.04", f"local:{name}")
        assert len(lines(daemon, "image", "list")) == 4
    finally:
        daemon.command("remote", "switch", "local")
    assert name in daemon.instances()


def test_copy(daemon: Daemon, server: Simplestreams) -> None:
    own = unique("noble")
    words = ["image", "copy", "ubuntu:24.04", "local:", "--alias", own, "--auto-update", "--public"]
    assert daemon.command(*words, "--copy-aliases").stdout == "Image copied successfully!\n"
    (image,) = json.loads(daemon.command("image", "list", own, "-f", "json").stdout)
    assert sorted(alias["name"] for alias in image["aliases"]) == sorted(
        ["24.04", "24.04/amd64", "noble", "noble/amd64", own]
    )
    assert (image["public"], image["auto_update"], image["cached"]) == (True, True, False)
    assert daemon.command("image", "refresh", own).stdout == "Image already up to date.\n"
    daemon.command("image", "copy", "ubuntu:22.04", "local:", "--alias", own)
    assert daemon.command("image", "info", own).stdout.startswith(f"Fingerprint: {fingerprint(server)}")


def test_remotes_that_are_no_servers(daemon: Daemon, server: Simplestreams) -> None:
    before = daemon.command("remote", "list", "-f", "json").stdout
    nowhere = refusal(daemon, "remote", "add", "m", f"{server.url}/nope", "--protocol=simplestreams")
    assert nowhere.endswith("has no '/nope/streams/v1/index.json'")
    assert "is no server of LXD's protocol" in refusal(daemon, "remote", "add", "m", server.url, "--public")
    assert daemon.command("remote", "list", "-f", "json").stdout == before
    daemon.command("remote", "add", "m", server.url, "--protocol=simplestreams")
    assert len(lines(daemon, "image", "list", "m:")) == 4
    daemon.command("remote", "remove", "m")


# -- progress ------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(daemon: Daemon, authority: Authority, busybox_files: list[str], tmp_path: Path) -> Iterator[Simplestreams]:
    """A server, the remote `slow`, that takes seconds for a root file system until it is healed."""
    server = Simplestreams(tmp_path, authority, daemon.netns)
    server.add("20240601", another_version(busybox_files, unique("slow")))
    server.publish()
    daemon.command("remote", "add", "slow", server.url, "--protocol=simplestreams")
    server.fault("*.squashfs", pace=0.4)
    yield server
    server.close()
    daemon.command("remote", "remove", "slow")


def test_progress_on_a_terminal(daemon: Daemon, slow: Simplestreams, name: str) -> None:
    with Terminal(daemon.command_line("init", "slow:22.04", name), daemon.env, columns=120) as terminal:
        terminal.expect(f"Creating {name}: rootfs")
        terminal.expect("/1.1 MB")
        terminal.expect("kB/s")
        slow.heal()
        assert terminal.wait() == 0
    assert name in daemon.instances()


def test_progress_elsewhere_and_cancelling(daemon: Daemon, slow: Simplestreams, name: str) -> None:
    slow.heal()
    slow.fault("*.squashfs", pace=3)
    command = daemon.command_line("init", "slow:22.04", name)
    with subprocess.Popen(command, env=daemon.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as init:
        assert init.stderr
        # It was told before the command began to listen, and is shown although nothing has come since.
        assert re.fullmatch(rf"Creating {name}: metadata: \d+B \(100%\)\n", init.stderr.readline())
        assert re.fullmatch(rf"Creating {name}: rootfs: [\d.]+kB \(\d+%\)\n", init.stderr.readline())
        init.send_signal(2)
        assert init.stderr.read().splitlines()[-1] == "Error: Remote operation canceled by user"
    assert init.returncode == 1
    assert name not in daemon.instances()
    until(lambda: not lines(daemon, "image", "list", fingerprint(slow)), "nothing is kept")


# -- public servers of LXD's own protocol --------------------------------------------------------------------------


@pytest.fixture
def public(daemon: Daemon, tmp_path: Path) -> Iterator[WebServer]:
    """A server of LXD's protocol whose certificate nobody has signed that this host trusts."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/1.0").write_text(json.dumps({"metadata": {"api_version": "1.0", "public": True}}))
    server = WebServer(tmp_path / "tree", Authority(tmp_path), daemon.netns)
    yield server
    server.close()


def test_a_server_is_known_by_the_certificate_that_was_accepted(daemon: Daemon, public: WebServer) -> None:
    address = public.url.removeprefix("https://")
    add = ["remote", "add", "site", address, "--public"]
    for answer, said in (("", "NACKed by user"), ("maybe\n", "Please type")):
        refused = daemon.command(*add, input=answer, check=False)
        assert (refused.returncode, said in refused.stderr) == (1, True)
    asked = daemon.command(*add, input="n\n", check=False).stdout
    daemon.command(*add, input=re.findall(r"Certificate fingerprint: ([0-9a-f]{64})", asked)[0] + "\n")
    shown = json.loads(daemon.command("remote", "list", "-f", "json").stdout)["site"]
    assert (shown["Addr"], shown["Protocol"], shown["Public"]) == (public.url, "lxd", True)
    certificate = Path(f"{daemon.dir}/client/servercerts/site.crt")
    assert certificate.read_text().startswith("-----BEGIN CERTIFICATE-----")
    daemon.command("remote", "remove", "site")
    assert not certificate.exists()
    assert daemon.command(*add, "--accept-certificate").stdout == ""
    daemon.command("remote", "remove", "site")
