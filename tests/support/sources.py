"""What tests of images from elsewhere share."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.daemon import ApiError, Daemon, unique
from tests.support.simplestreams import Simplestreams, another_version
from tests.support.webserver import WebServer


def source(server: WebServer, alias: str = "22.04", **more: str) -> dict[str, str]:
    """Return the source of a request for an image of a simplestreams server."""
    return {"type": "image", "mode": "pull", "server": server.url, "protocol": "simplestreams", "alias": alias, **more}


def pull(daemon: Daemon, source: dict[str, str], **body: Any) -> str:
    """Fetch an image; return its fingerprint."""
    fingerprint: str = daemon.request("POST", "/1.0/images", {"source": source, **body})["fingerprint"]
    return fingerprint


def refused(daemon: Daemon, source: dict[str, str]) -> str:
    """Ask for an image that cannot be had; return the one line that says so."""
    before = daemon.request("GET", "/1.0/images")
    with pytest.raises(ApiError) as error:
        pull(daemon, source)
    assert "\n" not in error.value.text
    assert daemon.request("GET", "/1.0/images") == before
    assert not staged(daemon)
    return error.value.text


def staged(daemon: Daemon) -> list[str]:
    """Return what lies in the store and belongs to no image."""
    return [name for name in os.listdir(f"{daemon.dir}/images") if name.startswith(".")]


def published(server: Simplestreams, files: list[str], serial: str = "20240101", **more: Any) -> str:
    """Publish an image that no other call has published; return its fingerprint."""
    fingerprint = server.add(serial, another_version(files, unique("serial")), **more)
    server.publish()
    return fingerprint


def listing(daemon: Daemon, server: WebServer, **query: str) -> list[dict[str, Any]]:
    """Return what pylxc lists of a simplestreams server."""
    query = {"protocol": "simplestreams", "server": server.url, **query}
    found: list[dict[str, Any]] = daemon.request("GET", f"/1.0/pylxc/images?{urlencode(query)}")
    return found
