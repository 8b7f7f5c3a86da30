"""Images from a public server: a simplestreams tree on loopback, one web server per network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.server import Samples, Server
from tests.support.images import image_files
from tests.support.simplestreams import JAMMY, Simplestreams
from tests.support.tls import Authority
from tests.support.webserver import WebServer

PRODUCTS = 2000
VERSIONS = 2
IMPORTED_BYTES = 2 << 30


class Sources:
    """The trees: `real` has Debian 12, `large` thousands of products.

    SSL_CERT_FILE of this process is set, so that servers that are started from now on trust it.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="bench-sources-", dir="/var/tmp"))
        self._authority = Authority(self.directory)
        os.environ["SSL_CERT_FILE"] = self._authority.file
        self._web: list[WebServer] = []

    def serve(self, server: Server) -> None:
        """Serve both trees to a server, as its remotes `real` and `large`."""
        for name in ("real", "large"):
            web = WebServer(self.directory / name / "tree", self._authority, server.netns)
            self._web.append(web)
            server.run("remote", "add", name, web.url, "--protocol", "simplestreams")

    def make(self) -> None:
        """Make the trees."""
        real = Simplestreams(self.directory / "real", self._authority, None)
        real.add("20240101", list(image_files("debian/12")))
        real.publish()
        large = Simplestreams(self.directory / "large", self._authority, None)
        large.products = {f"bench:{number}": _product(number) for number in range(PRODUCTS)}
        large.publish()
        self._web += [real, large]

    def close(self) -> None:
        """Stop serving and remove the trees."""
        for web in self._web:
            web.close()
        shutil.rmtree(self.directory)


def _product(number: int) -> dict[str, Any]:
    """Return a product like those of Ubuntu, with two versions."""
    arch = ("amd64", "arm64", "armhf", "ppc64el", "s390x")[number % 5]
    release = f"r{number // 5}"

    def item(kind: str, serial: str) -> dict[str, Any]:
        digest = f"{number:032x}{serial:0>24}{len(kind):08x}"
        path = f"server/releases/{release}/release-{serial}/bench-{release}-server-cloudimg-{arch}-{kind}"
        return {"ftype": kind, "md5": digest[:32], "path": path, "sha256": digest, "size": 400_000_000}

    versions = {}
    for serial in ("20240101", "20240201")[:VERSIONS]:
        metadata = item("lxd.tar.xz", serial)
        metadata["combined_squashfs_sha256"] = metadata["sha256"][::-1]
        items = {"lxd.tar.xz": metadata, "squashfs": item("squashfs", serial), "manifest": item("manifest", serial)}
        versions[serial] = {"items": items, "label": "release", "pubname": f"bench-{release}-{arch}-{serial}"}
    names = {"aliases": f"{release},{release[0]}/{release}", "release": release, "version": release}
    return {**JAMMY, **names, "arch": arch, "release_title": f"Release {release}", "versions": versions}


def first_launch(server: Server, run: int) -> Samples:
    """Debian 12 from the web server for the first time: download, unpack, start."""
    seconds = server.time("launch", "real:22.04", f"first{run}")
    server.run("delete", "--force", f"first{run}")
    for image in json.loads(server.run("image", "list", "--format", "json")):
        if image["properties"].get("os") == "ubuntu":
            server.run("image", "delete", image["fingerprint"])
    return {"first launch, loopback server": seconds}


def list_large(server: Server, _run: int) -> Samples:
    """The table of all images of 2,000 products, after the first time. LXD's command asks the web server itself."""
    return {"image list, 2,000 products": server.time("image", "list", "large:", inside=True)}


def look_once(server: Server) -> None:
    """Show the large index for the first time."""
    server.time("image", "list", "large:", inside=True)


def import_memory(server: Server, run: int) -> Samples:
    """By how much the daemon's memory rises, in MiB, while an image of 2 GiB is imported."""
    assert server.process
    path = _large_image(server, run)
    before, most = _resident(server.process.pid), 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        assert server.process
        while not ended.is_set():
            most = max(most, _resident(server.process.pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        server.run("image", "import", path, "--alias", f"large{run}")
    finally:
        ended.set()
        watcher.join()
        os.unlink(path)
    server.run("image", "delete", f"large{run}")
    return {"memory while importing 2 GiB": (most - before) / (1 << 20)}


def _large_image(server: Server, run: int) -> str:
    """Write a unified image whose root file system has one large file; return its path."""
    tree = Path(tempfile.mkdtemp(dir=server.dir))
    (tree / "rootfs").mkdir()
    (tree / "metadata.yaml").write_text(f"architecture: x86_64\ncreation_date: {1_700_000_000 + run}\n")
    with open(tree / "rootfs/large", "wb") as file:
        file.truncate(IMPORTED_BYTES)
    subprocess.run(["tar", "-cf", f"{tree}.tar", "-C", str(tree), "metadata.yaml", "rootfs"], check=True)
    shutil.rmtree(tree)
    return f"{tree}.tar"


def _resident(pid: int) -> int:
    """Return the bytes of memory that a process has, of files' pages those that it shares with nobody left out."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no RssAnon of {pid}")
