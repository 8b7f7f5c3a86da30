"""Images from public servers: a simplestreams tree on loopback, laid out as Ubuntu's, by a server that misbehaves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.simplestreams import Simplestreams, another_version
from tests.support.tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def module_daemon(authority: Authority) -> Iterator[Daemon]:
    """A daemon that trusts the tests' authority, with a pool and no network."""
    daemon = Daemon()
    daemon.env["SSL_CERT_FILE"] = authority.file
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    yield daemon
    problems = daemon.close()
    assert not problems, problems


@pytest.fixture
def server(tmp_path: Path, daemon: Daemon, authority: Authority) -> Iterator[Simplestreams]:
    """A server without products, in the daemon's network namespace."""
    server = Simplestreams(tmp_path, authority, daemon.netns)
    yield server
    server.close()


def source(server: Simplestreams, alias: str = "22.04", **more: str) -> dict[str, str]:
    return {
        "type": "image",
        "mode": "pull",
        "server": server.url,
        "protocol": "simplestreams",
        "alias": alias,
        **more,
    }


def pull(daemon: Daemon, source: dict[str, str], **body: Any) -> str:
    fingerprint: str = daemon.request("POST", "/1.0/images", {"source": source, **body})["fingerprint"]
    return fingerprint


def published(server: Simplestreams, busybox_files: list[str], version: str = "20240101", **more: Any) -> str:
    """Publish an image that no other call has published; return its fingerprint."""
    fingerprint = server.add(version, another_version(busybox_files, unique("serial")), **more)
    server.publish()
    return fingerprint


def test_pull(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    fingerprint = published(server, busybox_files)
    assert pull(daemon, source(server)) == fingerprint
    image = daemon.request("GET", f"/1.0/images/{fingerprint}")
    assert image["update_source"] == {
        "alias": "22.04", "certificate": "", "protocol": "simplestreams", "server": server.url, "image_type": "",
    }  # fmt: skip
    assert image["properties"] == {
        "architecture": "amd64",
        "description": "ubuntu 22.04 LTS amd64 (release) (20240101)",
        "label": "release",
        "os": "ubuntu",
        "release": "jammy",
        "serial": "20240101",
        "type": "squashfs",
        "version": "22.04",
    }
    assert image["created_at"] == "2024-01-01T00:00:00Z"
    assert image["expires_at"] == "2032-04-21T00:00:00Z"
    assert image["cached"] is False
    assert not [name for name in os.listdir(f"{daemon.dir}/images") if name.startswith(".")]
