"""Images from public servers: a simplestreams tree on loopback, laid out as Ubuntu's, by a server that misbehaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import ApiError, Daemon, unique
from tests.support.simplestreams import INDEX, PRODUCTS, Simplestreams, another_version
from tests.support.sources import listing, published, pull, refused, source, staged
from tests.support.tls import Authority
from tests.support.wait import until


@pytest.fixture(scope="module")
def module_daemon(trusting_daemon: Daemon) -> Daemon:
    return trusting_daemon


@pytest.fixture
def server(tmp_path: Path, daemon: Daemon, authority: Authority) -> Iterator[Simplestreams]:
    """A server without products, in the daemon's network namespace."""
    server = Simplestreams(tmp_path, authority, daemon.netns)
    yield server
    server.close()


def begin(daemon: Daemon, source: dict[str, str], project: str = "default") -> str:
    """Begin a pull and return its operation's URL."""
    operation: str = daemon._exchange("POST", f"/1.0/images?project={project}", {"source": source}, 30)["operation"]
    return operation


def launch(daemon: Daemon, name: str, source: dict[str, str]) -> None:
    daemon.request("POST", "/1.0/instances", {"name": name, "source": source, "start": True}, timeout=120)


def squashfs_requests(server: Simplestreams) -> int:
    return sum(path.endswith(".squashfs") for path in server.paths())


# What is found.


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
    assert (image["created_at"], image["expires_at"]) == ("2024-01-01T00:00:00Z", "2032-04-21T00:00:00Z")
    assert image["cached"] is False
    assert not staged(daemon)


def test_names(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    """Aliases as the server gives them, with the architecture in any spelling; fingerprints; versions."""
    old, new = published(server, busybox_files, "20240101"), published(server, busybox_files, "20240201")
    published(server, busybox_files, "20240301", product="noble", aliases="24.04,n/x", release="noble", version="24.04")
    for alias in ("22.04", "jammy", "j/amd64", "22.04/x86_64", new[:12], new.upper()):
        assert [image["fingerprint"] for image in listing(daemon, server, alias=alias)] == [new], alias
    assert listing(daemon, server, alias="n/x")[0]["properties"]["release"] == "noble"
    assert pull(daemon, source(server, "", fingerprint=old[:20])) == old
    assert "update_source" not in daemon.request("GET", f"/1.0/images/{old}")
    assert refused(daemon, source(server, "nosuch/22.04")).endswith("has no image 'nosuch/22.04'")
    assert "by its alias or fingerprint" in refused(daemon, source(server, ""))


def test_foreign_architecture(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    arm = published(server, busybox_files, product="arm", arch="arm64", aliases="22.04,only-arm")
    own = published(server, busybox_files)
    assert [image["fingerprint"] for image in listing(daemon, server, alias="22.04")] == [own]
    for alias in ("22.04/arm64", "22.04/aarch64", "only-arm", arm[:12]):
        text = refused(daemon, source(server, alias))
        assert text == f"The image {alias!r} is for aarch64, and this host runs x86_64 and i686"
    (image,) = listing(daemon, server, filter="architecture eq aarch64")
    assert [alias["name"] for alias in image["aliases"]] == ["22.04/arm64", "only-arm/arm64"]


def root_tar(files: list[str], tmp_path: Path) -> bytes:
    """Return the root file system of a split image as root.tar.xz."""
    subprocess.run(["unsquashfs", "-q", "-n", "-d", f"{tmp_path}/tree", files[1]], check=True, capture_output=True)
    command = ["tar", "--xattrs", "-C", f"{tmp_path}/tree", "-cJf", f"{tmp_path}/root.tar.xz", "."]
    subprocess.run(command, check=True, env={**os.environ, "XZ_OPT": "-0"})
    return (tmp_path / "root.tar.xz").read_bytes()


def test_formats(daemon: Daemon, server: Simplestreams, busybox_files: list[str], tmp_path: Path, name: str) -> None:
    """Metadata with a tarball, Incus' name for it, both in one; the squashfs is preferred."""
    metadata = busybox_files[0]
    root = root_tar(busybox_files, tmp_path)
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz", compresslevel=1) as archive, tarfile.open(metadata) as described:
        for member in described:
            archive.addfile(member, described.extractfile(member))
        archive.add(tmp_path / "tree", "rootfs")
    split = another_version(busybox_files, unique("serial"))
    wanted = {
        "tar": server.add("20240101", [split[0], root], product="1", aliases="tar", rootfs="root.tar.xz"),
        "incus": server.add(
            "20240101", [another_version(busybox_files, "incus")[0], root], product="2", aliases="incus",
            metadata="incus.tar.xz", rootfs="root.tar.xz",
        ),
        "combined": server.add("20240101", [str(tmp_path / "all.tar.gz")], product="3", aliases="combined"),
    }  # fmt: skip
    server.publish()
    for alias, fingerprint in wanted.items():
        assert pull(daemon, source(server, alias)) == fingerprint
        daemon.request("POST", "/1.0/instances", {"name": f"{name}-{alias}", "source": source(server, alias)})
    better = server.add("20240101", split, product="1")
    server.publish()
    assert pull(daemon, source(server, "tar")) == better
    assert {image["fingerprint"] for image in listing(daemon, server, filter="properties.type eq root.tar.xz")} == {
        wanted["tar"],
        wanted["incus"],
    }


def test_listing(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    old, new = published(server, busybox_files, "20240101"), published(server, busybox_files, "20240201")
    first, second = listing(daemon, server)
    assert (first["fingerprint"], second["fingerprint"]) == (new, old)
    assert [alias["name"] for alias in first["aliases"]] == [
        "22.04", "22.04/amd64", "j", "j/amd64", "jammy", "jammy/amd64",
    ]  # fmt: skip
    assert second["aliases"] == []
    size = sum(os.path.getsize(file) for file in busybox_files)
    assert abs(first["size"] - size) < 1000
    assert {key: first[key] for key in ("public", "type", "architecture", "uploaded_at", "filename")} == {
        "public": True,
        "type": "container",
        "architecture": "x86_64",
        "uploaded_at": "2024-02-01T00:00:00Z",
        "filename": "ubuntu-22.04-server-cloudimg-amd64-lxd.tar.xz",
    }
    pull(daemon, source(server))
    kept = daemon.request("GET", f"/1.0/images/{new}")
    assert first.keys() <= kept.keys()
    with pytest.raises(ApiError, match="has no image") as missing:
        listing(daemon, server, alias="nosuch")
    assert missing.value.status == 404


# What is asked, and how often.


def test_launch_needs_the_server_once(
    daemon: Daemon, server: Simplestreams, busybox_files: list[str], name: str
) -> None:
    """An image that is kept up to date is used without asking, with the server away as well."""
    fingerprint = published(server, busybox_files)
    launch(daemon, f"{name}-1", source(server))
    image = daemon.request("GET", f"/1.0/images/{fingerprint}")
    assert (image["cached"], image["auto_update"]) == (True, True)
    server.heal()
    launch(daemon, f"{name}-2", source(server))
    assert server.paths() == []
    daemon.request("PATCH", "/1.0", {"config": {"images.auto_update_interval": "0"}})
    try:
        launch(daemon, f"{name}-3", source(server))
        assert server.paths() == [f"/{INDEX}", f"/{PRODUCTS}"]
        server.close()
        launch(daemon, f"{name}-4", source(server, "jammy"))
    finally:
        daemon.request("PATCH", "/1.0", {"config": {"images.auto_update_interval": ""}})
    assert {daemon.instances()[f"{name}-{number}"] for number in range(1, 5)} == {"Running"}
    daemon.delete_all()


def test_index_is_kept(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    """Shown again it is not asked for, found again it is only compared, and it serves while the server is away.

    What is no index does not take its place.
    """
    published(server, busybox_files)
    shown = listing(daemon, server)
    server.heal()
    assert listing(daemon, server) == shown
    assert server.paths() == []
    fault = server.fault(f"/{INDEX}", body=b"rubbish")
    with pytest.raises(ApiError, match="no simplestreams document"):
        listing(daemon, server, alias="22.04")
    fault.times = 0
    listing(daemon, server, alias="22.04")
    assert all("if-none-match" in request.headers for request in server.requests)
    newer = published(server, busybox_files, "20240201")
    assert listing(daemon, server, alias="22.04")[0]["fingerprint"] == newer
    server.close()
    assert listing(daemon, server, alias="22.04")[0]["fingerprint"] == newer
    with pytest.raises(ApiError, match="Failed reaching"):
        listing(daemon, server, alias="24.04")  # which it may have by now
    assert "Failed reaching" in refused(daemon, source(server))


def test_two_want_one(daemon: Daemon, server: Simplestreams, busybox_files: list[str], name: str) -> None:
    published(server, busybox_files)
    fault = server.fault("*.squashfs", hang=100_000)
    threads = [
        threading.Thread(target=launch, args=(daemon, f"{name}-{number}", source(server))) for number in range(2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: squashfs_requests(server), "the download has begun")
    until(lambda: len(launches(daemon)) == 2, "both wait for it")
    server._faults.clear()
    fault.released.set()
    for thread in threads:
        thread.join()
    assert sum("range" not in r.headers for r in server.requests if r.path.endswith(".squashfs")) == 1
    assert {daemon.instances()[f"{name}-{number}"] for number in range(2)} == {"Running"}
    daemon.delete_all()


def test_who_wanted_to_keep_it_gives_up(
    daemon: Daemon, server: Simplestreams, busybox_files: list[str], name: str
) -> None:
    """Then it is an image like any that a launch has fetched: it goes when nobody uses it."""
    fingerprint = published(server, busybox_files)
    fault = server.fault("*.squashfs", hang=100_000)
    copy = begin(daemon, source(server))
    until(lambda: squashfs_requests(server), "the download has begun")
    launching = threading.Thread(target=launch, args=(daemon, name, source(server)))
    launching.start()
    until(lambda: [one for one in launches(daemon) if one["metadata"]], "the launch is told of the download's progress")
    daemon.request("DELETE", copy)
    assert daemon.request("GET", f"{copy}/wait")["status"] == "Cancelled"
    server._faults.clear()
    fault.released.set()
    launching.join()
    assert daemon.instances()[name] == "Running"
    assert daemon.request("GET", f"/1.0/images/{fingerprint}")["cached"] is True
    daemon.delete_all()


def test_two_projects_want_one(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    """Those that have their images in common have one download of it as well."""
    fingerprint = published(server, busybox_files)
    fault = server.fault("*.squashfs", hang=100_000)
    other = unique("p")
    daemon.request("POST", "/1.0/projects", {"name": other, "config": {"features.images": "false"}})
    begun = [begin(daemon, source(server), project) for project in ("default", other)]
    until(lambda: squashfs_requests(server), "the download has begun")
    server._faults.clear()
    fault.released.set()
    ended = [daemon.request("GET", f"{operation}/wait") for operation in begun]
    assert [(one["err"], one["metadata"]["fingerprint"]) for one in ended] == [("", fingerprint)] * 2
    assert sum("range" not in r.headers for r in server.requests if r.path.endswith(".squashfs")) == 1
    daemon.request("DELETE", f"/1.0/projects/{other}")


def test_pools(daemon: Daemon, server: Simplestreams, busybox_files: list[str], name: str) -> None:
    """Each pool gets its own volume of the image when it is first wanted there, all at once as well."""
    fingerprint = published(server, busybox_files)
    daemon.request("POST", "/1.0/storage-pools", {"name": name, "driver": "dir"})

    def create(number: int) -> None:
        root = {"type": "disk", "path": "/", "pool": ("default", name)[number % 2]}
        body = {"name": f"{name}-{number}", "source": source(server), "devices": {"root": root}, "start": True}
        daemon.request("POST", "/1.0/instances", body, timeout=120)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(create, range(4)))
    assert set(daemon.instances().values()) == {"Running"}
    for pool in ("default", name):
        assert os.path.isdir(f"{daemon.dir}/storage-pools/{pool}/images/{fingerprint}/rootfs")
    assert squashfs_requests(server) == 1
    daemon.delete_all()
    daemon.request("DELETE", f"/1.0/images/{fingerprint}")
    daemon.request("DELETE", f"/1.0/storage-pools/{name}")


def launches(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the operations that create an instance right now; those that have ended stay to be seen for a while."""
    running = daemon.request("GET", "/1.0/operations?recursion=1").get("running", [])
    return [operation for operation in running if operation["description"] == "Creating instance"]


def test_progress(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    published(server, busybox_files)
    fault = server.fault("*.squashfs", hang=700_000)
    operation = begin(daemon, source(server))

    def progress() -> dict[str, Any]:
        metadata: dict[str, Any] = daemon.request("GET", operation)["metadata"]
        return metadata if "rootfs" in (metadata or {}).get("download_progress", "") else {}

    metadata = until(progress, "there is progress")
    assert metadata["download_progress"].startswith("rootfs: ")
    assert "B/s)" in metadata["download_progress"]
    detail = metadata["progress"]
    assert detail["stage"] == "download"
    assert 0 < detail["processed"] < detail["total"] == os.path.getsize(busybox_files[1])
    daemon.request("DELETE", operation)
    fault.released.set()


def test_cancel(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    """Also of a server that sends nothing any more."""
    published(server, busybox_files)
    server.fault("*.squashfs", hang=300_000)
    operation = begin(daemon, source(server))
    until(lambda: squashfs_requests(server), "the download has begun")
    began = time.monotonic()
    daemon.request("DELETE", operation)
    assert daemon.request("GET", f"{operation}/wait")["status"] == "Cancelled"
    assert time.monotonic() - began < 5
    assert not staged(daemon)


def test_killed_daemon(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    fingerprint = published(server, busybox_files)
    fault = server.fault("*.squashfs", hang=300_000)
    begin(daemon, source(server))
    until(lambda: squashfs_requests(server), "the download has begun")
    daemon.signal(signal.SIGKILL)
    fault.times = 0
    daemon.start()
    assert not staged(daemon)
    assert pull(daemon, source(server)) == fingerprint


# Faults that pass.


@pytest.mark.parametrize("how", [{}, {"no_range": True}, {"changed": True}])
def test_resumed(daemon: Daemon, server: Simplestreams, busybox_files: list[str], how: dict[str, bool]) -> None:
    """The rest only, where the server can; from the beginning, where it cannot or has another file now."""
    fingerprint = published(server, busybox_files)
    server.fault("*.squashfs", times=1, cut=600_000, **({"no_range": True} if "no_range" in how else {}))
    if how:
        server.fault("*.squashfs", **how)
    assert pull(daemon, source(server)) == fingerprint
    requests = [request for request in server.requests if request.path.endswith(".squashfs")]
    assert ["range" in request.headers for request in requests] == [False, True]
    assert requests[1].headers["range"].startswith("bytes=")
    assert ("if-range" in requests[1].headers) is ("no_range" not in how)


def test_tried_again(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    fingerprint = published(server, busybox_files)
    server.fault(f"/{INDEX}", times=1, status=503)
    server.fault(f"/{PRODUCTS}", times=1, cut=50)
    server.fault("*.tar.xz", times=1, status=502)
    assert pull(daemon, source(server)) == fingerprint


def test_redirect(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    fingerprint = published(server, busybox_files)
    moved = next(server.root.glob("**/*.squashfs"))
    shutil.copy(moved, server.root / "elsewhere")
    server.fault("*.squashfs", redirect="/elsewhere")
    assert pull(daemon, source(server)) == fingerprint


# Faults that stay.


@pytest.mark.parametrize(
    ("pattern", "how", "text"),
    [
        ("*.squashfs", {"corrupt": True}, "The image is damaged or forged: it has the fingerprint"),
        ("*.tar.xz", {"corrupt": True}, "The image is damaged or forged: it has the fingerprint"),
        ("*.squashfs", {"short": 1000}, "bytes"),
        ("*.squashfs", {"body": b"x" * 4_000_000}, "is longer than the"),
        ("*.squashfs", {"cut": 0}, "broke off"),
        ("*.squashfs", {"status": 404}, "has no "),
        ("*.squashfs", {"status": 403}, "answers 403 Forbidden for"),
        ("*", {"redirect": "/again"}, "redirects more than 10 times"),
        ("*.squashfs", {"redirect": "http://127.0.0.1/x"}, "https:// URLs only, not by 'http://127.0.0.1/x'"),
        ("*.squashfs", {"redirect": "file:///etc/passwd"}, "https:// URLs only"),
        (f"/{INDEX}", {"status": 404}, "has no '/streams/v1/index.json'"),
        (f"/{INDEX}", {"body": b"<html>sorry</html>"}, "is no simplestreams document: it has no 'index'"),
        (f"/{INDEX}", {"body": b'{"index": {}}'}, "lists no images to be downloaded"),
        (f"/{INDEX}", {"body": b"[" * 100_000}, "is no simplestreams document"),
        (f"/{PRODUCTS}", {"body": b'{"products": []}'}, "is no simplestreams document: it has no 'products'"),
        (f"/{PRODUCTS}", {"body": b'{"products": {"p": {"versions": {"20240101": 5}}}}'}, "has no image '22.04'"),
        (f"/{PRODUCTS}", {"body": b"\xff\xfe\x00"}, "is no simplestreams document"),
    ],
)
def test_refused(
    daemon: Daemon, server: Simplestreams, busybox_files: list[str], pattern: str, how: dict[str, Any], text: str
) -> None:
    """One line, nothing left behind, and all is well once the server is."""
    fingerprint = published(server, busybox_files)
    server.fault(pattern, **how)
    assert text in refused(daemon, source(server))
    server.heal()
    assert pull(daemon, source(server)) == fingerprint


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "https://", "", "https://a:b", "/etc", "https://x y"])
def test_only_https(daemon: Daemon, server: Simplestreams, url: str) -> None:
    assert "https:// URLs only" in refused(daemon, {**source(server), "server": url})


def test_server_that_vanishes(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    published(server, busybox_files)
    server.fault("*.squashfs", hang=300_000)
    operation = begin(daemon, source(server))
    until(lambda: squashfs_requests(server), "the download has begun")
    server.close()
    done = daemon.request("GET", f"{operation}/wait")
    assert "Connection refused" in done["err"]
    assert not staged(daemon)


def test_alias_that_vanished(daemon: Daemon, server: Simplestreams, busybox_files: list[str], name: str) -> None:
    """The image stays, and is used."""
    fingerprint = published(server, busybox_files)
    launch(daemon, f"{name}-1", source(server))
    server.products.clear()
    published(server, busybox_files, product="other", aliases="other")
    with pytest.raises(ApiError, match="has no image"):
        daemon.request("POST", f"/1.0/images/{fingerprint}/refresh")
    launch(daemon, f"{name}-2", source(server))
    daemon.delete_all()


def test_alias_that_is_taken_here(daemon: Daemon, server: Simplestreams, busybox_files: list[str]) -> None:
    taken = unique("taken")
    published(server, busybox_files)
    pull(daemon, source(server), aliases=[{"name": taken}])
    server.heal()
    with pytest.raises(ApiError, match="already exists") as conflict:
        pull(daemon, source(server), aliases=[{"name": taken}])
    assert conflict.value.status == 409
    assert server.paths() == []


@pytest.mark.parametrize("told", [True, False])
def test_disk_full(
    make_daemon: Any, authority: Authority, tmp_path: Path, busybox_files: list[str], told: bool
) -> None:
    """Known beforehand nothing is fetched; else it ends where the disk does."""
    daemon: Daemon = make_daemon()
    daemon.env["SSL_CERT_FILE"] = authority.file
    daemon.start()
    server = Simplestreams(tmp_path, authority, daemon.netns)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", f"{daemon.dir}/images"], check=True)
    try:
        server.add("20240101", list(busybox_files))
        for version in server.products["com.ubuntu.cloud:server:22.04:amd64"]["versions"].values():
            for item in version["items"].values():
                item.pop("size") if not told else None
        server.publish()
        assert "no space left on the disk" in refused(daemon, source(server))
        assert squashfs_requests(server) == (0 if told else 1)
    finally:
        subprocess.run(["umount", f"{daemon.dir}/images"], check=True)
        server.close()


def test_debian(daemon: Daemon, server: Simplestreams, debian12_files: list[str], name: str) -> None:
    """Debian 12 boots; the next version replaces the image when asked, and leaves the instance alone."""
    old = server.add("20240101", list(debian12_files))
    server.publish()
    launch(daemon, name, source(server))
    state = ["exec", name, "--", "systemctl", "is-system-running"]
    until(lambda: daemon.command(*state, check=False).stdout.strip() in ("running", "degraded"), "it has booted", 90)
    new = published(server, debian12_files, "20240201")
    result = daemon.request("POST", f"/1.0/images/{old}/refresh", timeout=120)
    assert (result["refreshed"], result["fingerprint"]) == (True, new)
    kept = daemon.request("GET", f"/1.0/images/{new}")
    assert (kept["cached"], kept["auto_update"], kept["properties"]["serial"]) == (True, True, "20240201")
    assert f"/1.0/images/{old}" not in daemon.request("GET", "/1.0/images")
    server.heal()
    daemon.request("POST", "/1.0/instances", {"name": f"{name}-2", "source": source(server)})
    config = daemon.request("GET", f"/1.0/instances/{name}-2")["config"]
    assert config["volatile.base_image"] == new
    assert server.paths() == []
    assert daemon.instances()[name] == "Running"
    daemon.delete_all()
