"""Whom the daemon believes about images: certificates, signed indexes, and proxies on the way."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import ApiError, Daemon
from tests.support.proxy import Proxy
from tests.support.simplestreams import PRODUCTS, Simplestreams
from tests.support.sources import listing, published, pull, refused, source
from tests.support.tls import Authority


@pytest.fixture(scope="module")
def module_daemon(trusting_daemon: Daemon) -> Daemon:
    return trusting_daemon


@pytest.fixture
def server(tmp_path: Path, daemon: Daemon, authority: Authority) -> Iterator[Simplestreams]:
    """A server without products, in the daemon's network namespace."""
    server = Simplestreams(tmp_path, authority, daemon.netns)
    yield server
    server.close()


def test_untrusted_server(daemon: Daemon, tmp_path: Path, busybox_files: list[str]) -> None:
    """One that nobody vouches for is refused, unless its certificate is the one that is expected."""
    (tmp_path / "authority").mkdir()
    authority = Authority(tmp_path / "authority")
    server = Simplestreams(tmp_path, authority, daemon.netns)
    try:
        fingerprint = published(server, busybox_files)
        assert "cannot be trusted: " in refused(daemon, source(server))
        other = daemon.request("GET", "/1.0")["environment"]["certificate"]
        assert "cannot be trusted: " in refused(daemon, source(server, certificate=other))
        assert "it is no PEM" in refused(daemon, source(server, certificate="x"))
        assert pull(daemon, source(server, certificate=authority.pem)) == fingerprint
        kept = daemon.request("GET", f"/1.0/images/{fingerprint}")["update_source"]
        assert kept["certificate"] == authority.pem
        assert daemon.request("POST", f"/1.0/images/{fingerprint}/refresh")["refreshed"] is False
    finally:
        server.close()


def gpg_key(directory: Path) -> tuple[str, str]:
    """Return a new key's gpg home, and its key ring."""
    directory.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(directory), "--batch", "--quiet"]
    options = ["--passphrase", "", "--quick-generate-key", "images@example.org", "ed25519", "sign", "never"]
    subprocess.run([*gpg, *options], check=True, capture_output=True)
    subprocess.run([*gpg, "--output", str(directory / "keys.gpg"), "--export"], check=True)
    subprocess.run(["gpgconf", "--homedir", str(directory), "--kill", "gpg-agent"], check=True)
    return str(directory), str(directory / "keys.gpg")


def test_signed_index(
    daemon: Daemon, server: Simplestreams, busybox_files: list[str], tmp_path: Path, need: Any
) -> None:
    need("gpg", "gpgv")
    home, keyring = gpg_key(tmp_path / "own")
    stranger, _ = gpg_key(tmp_path / "stranger")
    key = f"images.keyring.{server.url.removeprefix('https://')}"
    fingerprint = published(server, busybox_files)
    with pytest.raises(ApiError, match="absolute"):
        daemon.request("PATCH", "/1.0", {"config": {key: "keys.gpg"}})
    daemon.request("PATCH", "/1.0", {"config": {key: keyring}})
    assert "has no '/streams/v1/index.sjson'" in refused(daemon, source(server))
    server.publish(sign_by=stranger)
    assert "signed by a key that is not in the key ring" in refused(daemon, source(server))
    server.publish(sign_by=home)
    assert pull(daemon, source(server)) == fingerprint
    assert listing(daemon, server)[0]["fingerprint"] == fingerprint
    signed = server.root / "streams/v1/com.ubuntu.cloud:released:download.sjson"
    content = signed.read_bytes()
    signed.write_bytes(content.replace(b"jammy", b"jimmy"))
    assert "its signature does not fit" in refused(daemon, source(server, "j"))
    signed.write_bytes((server.root / PRODUCTS).read_bytes())
    assert "it is not signed" in refused(daemon, source(server, "j"))
    daemon.request("PATCH", "/1.0", {"config": {key: "/nonexistent"}})
    assert "Failed reading the key ring" in refused(daemon, source(server))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(home)
    shutil.rmtree(stranger)


def test_proxy(daemon: Daemon, tmp_path: Path, authority: Authority, busybox_files: list[str]) -> None:
    """The server's keys say which; hosts that need none are asked directly."""
    assert daemon.netns
    subprocess.run(["ip", "-n", daemon.netns.name, "address", "add", "198.51.100.7/32", "dev", "lo"], check=True)
    server = Simplestreams(tmp_path, authority, daemon.netns, "198.51.100.7")
    proxy = Proxy(daemon.netns)
    try:
        fingerprint = published(server, busybox_files)
        keys = {"core.proxy_https": f"http://user:secret@{proxy.address}", "core.proxy_ignore_hosts": ""}
        daemon.request("PATCH", "/1.0", {"config": keys})
        assert pull(daemon, source(server)) == fingerprint
        assert proxy.asked
        assert {line.split()[1] for line, _ in proxy.asked} == {server.url.removeprefix("https://")}
        assert {login for _, login in proxy.asked} == {"Basic dXNlcjpzZWNyZXQ="}
        proxy.asked.clear()
        daemon.request("PATCH", "/1.0", {"config": {"core.proxy_ignore_hosts": "example.org,198.51.100.7"}})
        listing(daemon, server, alias="22.04")
        assert not proxy.asked
        proxy.close()
        daemon.request("PATCH", "/1.0", {"config": {"core.proxy_ignore_hosts": ""}})
        published(server, busybox_files, "20240201")
        daemon.request("DELETE", f"/1.0/images/{fingerprint}")
        assert "through the proxy: Connection refused" in refused(daemon, source(server))
    finally:
        daemon.request("PATCH", "/1.0", {"config": {"core.proxy_https": "", "core.proxy_ignore_hosts": ""}})
        server.close()
        proxy.close()
