"""The image cache: images are replaced when their source has a newer one, and go when nobody uses them."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.clock import Clock
from tests.support.daemon import ApiError, Daemon, unique
from tests.support.simplestreams import Simplestreams, another_version
from tests.support.tls import Authority
from tests.support.wait import until

TWO_POOLS = {
    "storage_pools": [{"name": "default", "driver": "dir"}, {"name": "other", "driver": "dir"}],
    "profiles": [{"name": "default", "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}}],
}


class Host:
    """A daemon with two pools, whose clock the test sets, and a server that the test publishes versions on."""

    def __init__(self, directory: Path, files: list[str]) -> None:
        self.files = files
        authority = Authority(directory)
        self.daemon = Daemon()
        self.daemon.env["SSL_CERT_FILE"] = authority.file
        self.clock = Clock(self.daemon)
        self.server = Simplestreams(directory, authority, self.daemon.netns)
        self.source = {
            "type": "image", "mode": "pull", "server": self.server.url, "protocol": "simplestreams", "alias": "22.04",
        }  # fmt: skip
        self.daemon.start()
        self.daemon.command("admin", "init", "--preseed", input=json.dumps(TWO_POOLS))
        self.request = self.daemon.request

    def publish(self, version: str) -> str:
        """Make `version` the only one that the server has of 22.04; return its fingerprint."""
        self.server.products.clear()
        fingerprint = self.server.add(version, another_version(self.files, version))
        self.server.publish()
        return fingerprint

    def create(self, source: dict[str, str] | None = None, pool: str = "default", project: str = "default") -> str:
        """Make an instance of an image, by default of the server's; return its name."""
        name = unique("c")
        devices = {"root": {"type": "disk", "path": "/", "pool": pool}}
        body = {"name": name, "source": source or self.source, "devices": devices}
        self.request("POST", f"/1.0/instances?project={project}", body)
        return name

    def images(self, project: str = "default") -> list[dict[str, Any]]:
        images: list[dict[str, Any]] = self.request("GET", f"/1.0/images?recursion=1&project={project}")
        return images

    def versions(self, project: str = "default") -> list[str]:
        return [image["properties"]["serial"] for image in self.images(project)]

    def volumes(self) -> dict[str, list[str]]:
        """Return the fingerprints of the images that have volumes, by pool."""
        urls = {name: self.request("GET", f"/1.0/storage-pools/{name}/volumes/image") for name in ("default", "other")}
        return {name: [url.rpartition("/")[2] for url in found] for name, found in urls.items()}

    def stored(self) -> set[str]:
        """Return the names of what lies in the store, as fingerprints."""
        return {name.removesuffix(".rootfs") for name in os.listdir(f"{self.daemon.dir}/images")}

    def nothing_is_left(self) -> bool:
        """Tell whether files and volumes are those of images that there are."""
        known = {image["fingerprint"] for image in self.images() + self.images("p1")}
        return self.stored() == known and set().union(*self.volumes().values()) <= known

    def advance(self, **time: float) -> None:
        """Let time pass; return when the daemon has looked for images that nobody uses."""
        self.clock.advance(**time)
        begin = self.clock.now() - dt.timedelta(minutes=1)
        until(lambda: self.last_run("images-expire") > begin, "the daemon has looked after its images")

    def waits_for_the_disk(self) -> bool:
        """Tell whether a thread of the daemon is in a call that the kernel does not let go."""
        assert self.daemon.process
        stats = Path(f"/proc/{self.daemon.process.pid}/task").glob("*/stat")
        return any(stat.read_text().rpartition(") ")[2].startswith("D") for stat in stats)

    def last_run(self, job: str) -> dt.datetime:
        """Return when a job last ran to its end."""
        with contextlib.closing(sqlite3.connect(f"{self.daemon.dir}/database/pylxc.db")) as database:
            rows = database.execute("SELECT last_ran_at FROM jobs WHERE name = ?", (job,)).fetchall()
        return dt.datetime.fromisoformat(f"{rows[0][0]}+00:00")


@pytest.fixture(scope="module")
def module_host(tmp_path_factory: pytest.TempPathFactory, busybox_files: list[str]) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"), busybox_files)
    host.request("POST", "/1.0/projects", {"name": "p1", "config": {"features.profiles": "false"}})
    yield host
    host.server.close()
    problems = host.daemon.close()
    assert not problems, problems


@pytest.fixture
def host(module_host: Host) -> Iterator[Host]:
    """A host without images, whose daemon has been up for long."""
    module_host.advance(hours=2)
    yield module_host
    module_host.server.heal()
    module_host.daemon.delete_all()
    for project in ("default", "p1"):
        for instance in module_host.request("GET", f"/1.0/instances?project={project}&recursion=1"):
            module_host.request("DELETE", f"/1.0/instances/{instance['name']}?project={project}")
        for image in module_host.images(project):
            module_host.request("DELETE", f"/1.0/images/{image['fingerprint']}?project={project}")
    assert module_host.nothing_is_left()
    module_host.request("PUT", "/1.0", {"config": {}})


def test_replaced_and_expired_in_the_background(host: Host) -> None:
    """As the settings say, by the daemon's own schedule, across restarts and kills."""
    daemon = host.daemon
    host.publish("20240101")
    host.create()
    host.create(pool="other")
    (first,) = host.images()
    assert (first["cached"], first["auto_update"], first["properties"]["serial"]) == (True, True, "20240101")
    host.request("POST", "/1.0/images/aliases", {"name": "mine", "target": first["fingerprint"]})
    host.request("PATCH", f"/1.0/images/{first['fingerprint']}", {"public": True, "properties": {"owner": "me"}})

    fingerprint = host.publish("20240202")
    daemon.signal(signal.SIGKILL)
    daemon.start()
    host.advance(hours=2)
    last = host.create({"type": "image", "alias": "mine"})
    assert host.versions() == ["20240101"], "it is not time yet"
    host.advance(hours=5)
    until(lambda: host.versions() == ["20240202"], "the image is replaced", 30)
    until(lambda: host.volumes() == {"default": [fingerprint], "other": [fingerprint]}, "and its volumes, in each pool")
    assert host.stored() == {fingerprint}
    (second,) = host.images()
    assert [alias["name"] for alias in second["aliases"]] == ["mine"]
    assert (second["public"], second["cached"], second["auto_update"]) == (True, True, True)
    assert second["properties"] == {
        **first["properties"], "owner": "me", "serial": "20240202",
        "description": first["properties"]["description"].replace("20240101", "20240202"),
    }  # fmt: skip
    assert second["last_used_at"] == host.request("GET", f"/1.0/images/{fingerprint}")["last_used_at"]
    assert second["last_used_at"] > first["last_used_at"]
    assert "Cached: yes" in daemon.command("image", "info", "mine").stdout
    assert "Auto update: enabled" in daemon.lxc("image", "info", "mine").stdout

    host.request("PUT", "/1.0", {"config": {"images.auto_update_interval": "0", "images.remote_cache_expiry": "3"}})
    host.publish("20240303")
    daemon.stop()
    daemon.start()
    host.advance(days=2)
    host.create({"type": "image", "alias": "mine"})
    host.advance(days=2)
    assert host.versions() == ["20240202"], "it was used, and updates are off"
    host.advance(days=1)
    until(lambda: not host.images(), "the image has expired")
    until(lambda: host.volumes() == {"default": [], "other": []}, "its volumes are gone")
    assert not host.stored()
    assert last in daemon.instances(), "what was made of it lives on"


@pytest.mark.parametrize(
    ("trouble", "reason", "again"),
    [
        ("vanished", "has no image '22.04'", {"hours": 7}),
        ("gone", "has no '/streams/v1/index.json'", {"hours": 7}),
        ("corrupt", "damaged or forged", {"hours": 1.1}),
    ],
)
def test_an_update_that_fails(host: Host, trouble: str, reason: str, again: dict[str, float]) -> None:
    """The image stays usable, the log says why in a line, and it is tried again: soon, when that may help."""
    old = host.publish("20240101")
    host.create()
    host.publish("20240202")
    lines = len(host.daemon.logs())
    if trouble == "vanished":
        host.server.products.clear()
        host.server.publish()
    elif trouble == "gone":
        host.server.fault("/streams/*", status=404)
    else:
        host.server.fault("*.squashfs", corrupt=True)
    host.advance(hours=7)
    until(lambda: "Cannot update" in host.daemon.logs()[lines:], "it has failed", 60)
    (warning,) = {
        line.partition("WARNING")[2] for line in host.daemon.logs()[lines:].splitlines() if "Cannot update" in line
    }
    assert f"Cannot update image {old[:12]}, which stays as it is:" in warning
    assert reason in warning
    assert host.versions() == ["20240101"]
    host.create({"type": "image", "fingerprint": old})
    assert host.nothing_is_left()
    host.server.heal()
    host.publish("20240202")
    host.advance(**again)
    until(lambda: host.versions() == ["20240202"], "it is tried again", 30)


def test_each_project_has_its_own_settings(host: Host) -> None:
    config = {
        "images.auto_update_interval": "2",
        "images.remote_cache_expiry": "1",
        "images.auto_update_cached": "true",
    }
    host.request("PATCH", "/1.0/projects/p1", {"config": config})
    host.publish("20240101")
    host.create()
    name = host.create(project="p1")
    assert len({image["fingerprint"] for image in host.images() + host.images("p1")}) == 1
    host.publish("20240202")
    host.advance(hours=3)
    until(lambda: host.versions("p1") == ["20240202"], "the project's image is replaced", 30)
    assert host.versions() == ["20240101"]
    until(host.nothing_is_left, "the files of both are there, and no others")
    host.request("PATCH", "/1.0/projects/p1", {"config": {"images.auto_update_interval": "0"}})
    host.advance(hours=22)
    until(lambda: host.versions("p1") == [], "the project's image has expired")
    until(lambda: host.versions() == ["20240202"], "the other project's is replaced when its time has come", 30)
    until(host.nothing_is_left, "its files have stayed")
    host.request("PATCH", "/1.0/projects/p1", {"config": {"images.auto_update_cached": "false"}})
    host.request("DELETE", f"/1.0/instances/{name}?project=p1")
    host.create(project="p1")
    assert [image["auto_update"] for image in host.images("p1")] == [False]


def test_expired_while_it_is_launched(host: Host) -> None:
    """An image whose time is over in the middle of a launch stays until that is done."""
    fingerprint = host.publish("20240101")
    host.create()
    host.request("PATCH", "/1.0", {"config": {"images.remote_cache_expiry": "3", "images.auto_update_interval": "0"}})
    host.request("POST", "/1.0/storage-pools", {"name": "slow", "driver": "btrfs", "config": {"size": "300MiB"}})
    mounted = f"{host.daemon.dir}/storage-pools/slow"
    made: list[str] = []
    launch = threading.Thread(target=lambda: made.append(host.create(pool="slow")))

    def expiring() -> bool:
        found = host.request("GET", "/1.0/operations?recursion=1").get("running", [])
        return any(operation["description"] == "Cleaning up expired images" for operation in found)

    subprocess.run(["fsfreeze", "--freeze", mounted], check=True)
    try:
        launch.start()
        until(host.waits_for_the_disk, "the launch is at its volume")
        host.clock.advance(days=10)
        until(expiring, "the daemon would remove it")
        assert [image["fingerprint"] for image in host.images()] == [fingerprint]
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", mounted], check=True)
    launch.join(60)
    until(lambda: not host.images(), "the image has expired")
    host.request("PUT", f"/1.0/instances/{made[0]}/state", {"action": "start"})
    host.request("PUT", f"/1.0/instances/{made[0]}/state", {"action": "stop", "force": True})
    host.request("DELETE", f"/1.0/instances/{made[0]}")
    host.request("DELETE", "/1.0/storage-pools/slow")


def test_a_clock_that_is_set_back(host: Host) -> None:
    """Nothing expires or stops being updated because the daemon's clock, or the server's, was another one."""
    host.request("PATCH", "/1.0", {"config": {"images.remote_cache_expiry": "3"}})
    host.publish("20240101")
    host.advance(days=400)
    host.create()
    host.advance(days=-400)
    host.create()
    assert host.versions() == ["20240101"]
    host.publish("20240202")
    host.advance(hours=7)
    until(lambda: host.versions() == ["20240202"], "the image is replaced", 30)
    host.create()
    host.advance(days=2)
    assert host.versions() == ["20240202"]


def test_refresh_by_hand(host: Host) -> None:
    """As lxc image refresh does; an image that is not updated by itself is updated when its user says so."""
    daemon = host.daemon
    old = host.publish("20240101")
    body = {"source": host.source, "aliases": [{"name": "mine"}], "properties": {"label": "beta"}}
    host.request("POST", "/1.0/images", body)
    for run in (daemon.command, daemon.lxc):
        assert "Image already up to date." in run("image", "refresh", "mine").stdout
    host.request("PATCH", f"/1.0/images/{old}", {"properties": {"os": "Mine"}})
    properties = host.images()[0]["properties"]
    del properties["architecture"]
    put = {"properties": properties, "profiles": ["default"], "expires_at": "2020-01-01T00:00:00Z"}
    host.request("PUT", f"/1.0/images/{old}", put)
    host.advance(days=30)
    assert host.versions() == ["20240101"], "neither cached nor updated by itself, and past what it says of itself"
    new = host.publish("20240202")
    assert "Image refreshed successfully!" in daemon.lxc("image", "refresh", "mine").stdout
    (image,) = host.images()
    assert (image["fingerprint"], image["cached"], image["auto_update"]) == (new, False, False)
    assert {key: image["properties"].get(key) for key in ("architecture", "label", "os", "serial")} == {
        "architecture": None, "label": "beta", "os": "Mine", "serial": "20240202",
    }  # fmt: skip
    assert host.nothing_is_left()
    alone = daemon.import_image("alone", host.files)
    refused = daemon.command("image", "refresh", alone, check=False)
    assert refused.stderr.strip() == "Error: The image has no source to be refreshed from"


def test_here_by_its_fingerprint(host: Host) -> None:
    """It stays what it is, until it is wanted by an alias, or is the next version of one that is."""

    def kept() -> list[tuple[str, bool, str]]:
        return sorted(
            (image["properties"]["serial"], image["auto_update"], image.get("update_source", {}).get("alias", ""))
            for image in host.images()
        )

    def by_fingerprint(fingerprint: str) -> dict[str, str]:
        return {**{key: value for key, value in host.source.items() if key != "alias"}, "fingerprint": fingerprint}

    host.create(by_fingerprint(host.publish("20240101")))
    assert kept() == [("20240101", False, "")]
    host.request("POST", "/1.0/images", {"source": host.source, "auto_update": True})
    assert kept() == [("20240101", True, "22.04")]
    host.create(by_fingerprint(host.publish("20240202")))
    assert kept() == [("20240101", True, "22.04"), ("20240202", False, "")]
    host.advance(hours=7)
    assert until(lambda: host.versions() == ["20240202"], "it is replaced by the one that is here already")
    assert kept() == [("20240202", True, "22.04")]


def test_deleted_while_it_is_being_replaced(host: Host) -> None:
    """Who deletes an image does not get another one in its place."""
    old = host.publish("20240101")
    host.create()
    host.publish("20240202")
    host.server.fault("*.squashfs", times=1, hang=1000)
    refresh = threading.Thread(target=host.request, args=("POST", f"/1.0/images/{old}/refresh"))
    refresh.start()
    until(lambda: any(name.startswith(".") for name in os.listdir(f"{host.daemon.dir}/images")), "it is being fetched")
    host.request("DELETE", f"/1.0/images/{old}")
    host.server.heal()
    refresh.join(60)
    assert host.images() == []
    assert host.nothing_is_left()


def test_killed_in_the_middle_of_a_replacement(host: Host) -> None:
    """What is there after a kill is the old image or the new one, usable, and nothing else."""
    host.publish("20240101")
    host.create()
    host.request("POST", "/1.0/images/aliases", {"name": "mine", "target": host.images()[0]["fingerprint"]})
    chance = random.Random(5)
    seconds = 0.6
    for number in range(1, 6):
        host.publish(f"2024020{number}")
        target = host.request("GET", "/1.0/images/aliases/mine")["target"]
        begin = time.monotonic()
        thread = threading.Thread(target=_ignoring(host.request, "POST", f"/1.0/images/{target}/refresh"))
        thread.start()
        if number > 1:
            time.sleep(chance.uniform(0, seconds))
            host.daemon.signal(signal.SIGKILL)
            thread.join(60)
            host.daemon.start()
        else:
            thread.join(60)
            seconds = time.monotonic() - begin
        host.create({"type": "image", "alias": "mine"})
        assert host.nothing_is_left()
        target = host.request("GET", "/1.0/images/aliases/mine")["target"]
        host.request("POST", f"/1.0/images/{target}/refresh")
        assert host.versions() == [f"2024020{number}"]
        assert host.nothing_is_left()


def test_volumes_of_an_image_that_a_crash_has_removed(host: Host) -> None:
    host.publish("20240101")
    host.create()
    host.daemon.signal(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(f"{host.daemon.dir}/database/pylxc.db")) as database:
        database.execute("DELETE FROM images")
        database.commit()
    host.daemon.start()
    assert host.volumes() == {"default": [], "other": []}
    assert not host.stored()


def test_used_replaced_and_deleted_all_at_once(host: Host) -> None:
    """A launch gets the image, or is told in one line that there is none; it is never broken."""
    host.publish("20240101")
    host.create()
    made: list[str] = []

    def launch(source: dict[str, str] | None = None) -> None:
        made.append(host.create(source))
        host.request("DELETE", f"/1.0/instances/{made[-1]}")

    def launch_here() -> None:
        for image in host.images():
            launch({"type": "image", "fingerprint": image["fingerprint"]})

    def change(method: str, suffix: str = "") -> None:
        time.sleep(0.3)
        for image in host.images():
            host.request(method, f"/1.0/images/{image['fingerprint']}{suffix}")

    def publish() -> None:
        time.sleep(0.5)
        host.publish(f"{random.randrange(2000, 2024)}{random.randrange(1001, 1029)}")

    with Crowd() as crowd:
        crowd.add(launch)
        crowd.add(launch)
        crowd.add(launch_here, "Image not found", "was deleted")
        crowd.add(lambda: change("DELETE"), "Image not found")
        crowd.add(lambda: change("POST", "/refresh"), "Image not found", "has no image")
        crowd.add(publish)
        time.sleep(6)
    assert crowd.wrong == []
    assert len(made) > 5
    assert host.nothing_is_left()


class Crowd:
    """Threads that do something again and again until the block ends; `wrong` gets the errors that they may not see."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, do: Callable[[], object], *allowed: str) -> None:
        """Begin to do something; errors with these texts are as it should be."""

        def run() -> None:
            while not self._over.is_set():
                try:
                    do()
                except ApiError as error:
                    if not any(text in error.text for text in allowed):
                        self.wrong.append(error.text)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def _ignoring(do: Callable[..., object], *args: str) -> Callable[[], None]:
    def run() -> None:
        with contextlib.suppress(Exception):  # the daemon is killed under it
            do(*args)

    return run
