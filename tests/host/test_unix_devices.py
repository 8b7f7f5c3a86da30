"""Devices of types unix-char and unix-block, as busybox guests see them: at start, hot, and when they appear later."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.wait import until

MARK = "on a block device"
CONTROL = "/dev/loop-control"


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture(scope="module")
def guests(host: Daemon) -> tuple[str, str]:
    """Return two running guests, the second one privileged."""
    names = unique("c"), unique("p")
    for name, config in zip(names, ("user.x=1", "security.privileged=true"), strict=True):
        host.command("launch", "busybox", name, "-c", config)
    return names


@pytest.fixture
def guest(host: Daemon, guests: tuple[str, str]) -> Iterator[str]:
    """Return the first guest, which loses its devices after the test."""
    yield guests[0]
    strip(host, guests[0])


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a block device of the host that begins with `MARK`."""
    file = tmp_path_factory.mktemp("disk") / "image"
    file.write_bytes(MARK.encode().ljust(1 << 20, b"\0"))
    device = subprocess.run(
        ["losetup", "-f", "--show", file], check=True, capture_output=True, text=True
    ).stdout.strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


def strip(host: Daemon, guest: str) -> None:
    body = host.request("GET", f"/1.0/instances/{guest}")
    host.request("PUT", f"/1.0/instances/{guest}", {**body, "devices": {}})


def add(host: Daemon, guest: str, name: str, kind: str, *words: str) -> None:
    host.command("config", "device", "add", guest, name, kind, *words)


def refused(host: Daemon, *words: str) -> str:
    done = host.command(*words, check=False)
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def run(host: Daemon, guest: str, script: str, *, user: int = 0) -> str:
    return host.command("exec", guest, "--user", str(user), "--", "sh", "-c", f"({script}) 2>&1 || :").stdout.strip()


def may_open(host: Daemon, guest: str, path: str) -> bool:
    return run(host, guest, f"test ! -f {path} && : < {path} && echo opened") == "opened"


def numbers(path: str) -> tuple[int, int]:
    found = os.stat(path).st_rdev
    return os.major(found), os.minor(found)


def devices_of(host: Daemon, guest: str) -> Any:
    return host.request("GET", f"/1.0/instances/{guest}")["devices"]


@pytest.mark.parametrize("index", [0, 1])
def test_block_device_comes_and_goes(host: Daemon, guests: tuple[str, str], disk: str, index: int) -> None:
    """By its path, with an owner and a mode of its own; when it is gone the group's permission is gone too."""
    guest = guests[index]
    major, minor = numbers(disk)
    owner = os.stat(disk)
    add(host, guest, "data", "unix-block", f"source={disk}", "path=/dev/data", "uid=12", "gid=34", "mode=0600")
    assert (
        run(host, guest, "stat -c '%F %u %g %a %t %T' /dev/data") == f"block special file 12 34 600 {major:x} {minor:x}"
    )
    assert run(host, guest, f"head -c {len(MARK)} /dev/data") == MARK
    assert MARK not in run(host, guest, f"head -c {len(MARK)} /dev/data", user=99)
    assert run(host, guest, f"head -c {len(MARK)} /dev/data", user=12) == MARK
    assert (os.stat(disk).st_uid, os.stat(disk).st_gid) == (owner.st_uid, owner.st_gid)
    assert os.stat(disk).st_mode == owner.st_mode
    host.command("config", "device", "set", guest, "data", "mode=0644", "path=/srv/data")
    assert run(host, guest, f"head -c {len(MARK)} /srv/data; ls /dev/data", user=99).startswith(MARK + "ls:")
    # Nodes that a privileged guest makes itself are of no use either.
    host.command("config", "device", "remove", guest, "data")
    assert MARK not in run(host, guest, f"cat /srv/data; mknod /dev/own b {major} {minor}; head -c 9 /dev/own")
    assert devices_of(host, guest) == {}


@pytest.mark.parametrize("index", [0, 1])
def test_at_start(host: Daemon, guests: tuple[str, str], disk: str, index: int) -> None:
    """All the ways to name a device; a node whose source is not there is made by its numbers."""
    guest = guests[index]
    major, minor = numbers(CONTROL)
    assert not may_open(host, guest, CONTROL)
    add(host, guest, "a", "unix-char", f"path={CONTROL}")
    add(host, guest, "b", "unix-char", f"source={CONTROL}", "path=/opt/deep/control", "mode=0640", "gid=7")
    add(host, guest, "c", "unix-block", f"source={disk}")
    add(host, guest, "d", "unix-char", "path=/dev/made", f"major={major}", f"minor={minor}")
    for _ in range(2):
        for path in (CONTROL, "/opt/deep/control", disk, "/dev/made"):
            assert may_open(host, guest, path), path
        assert run(host, guest, "stat -c '%u %g %a' /opt/deep/control /dev/made") == "0 7 640\n0 0 660"
        host.command("restart", "--force", guest)
    strip(host, guest)
    for path in (CONTROL, "/opt/deep/control", disk, "/dev/made"):
        assert not may_open(host, guest, path), path


def test_appears_and_vanishes(host: Daemon, guest: str, tmp_path: Path) -> None:
    """One that is not required comes when its node does, with all that is above it, and goes with it."""
    place = tmp_path / "bus" / "1"
    node = place / "dev"
    add(host, guest, "late", "unix-char", f"source={node}", "path=/dev/late", "required=false")
    assert run(host, guest, "ls /dev/late") == "ls: /dev/late: No such file or directory"
    place.mkdir(parents=True)
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(*numbers(CONTROL)))
    until(lambda: may_open(host, guest, "/dev/late"), "the device appears")
    assert not devices_of(host, guest)["late"].get("major")
    # Other numbers under the same name, as after it was plugged in again.
    os.unlink(node)
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 11))
    until(lambda: run(host, guest, "stat -c %t:%T /dev/late") == "1:b", "the device is another one")
    os.rename(tmp_path / "bus", tmp_path / "away")
    until(lambda: run(host, guest, "ls /dev/late").endswith("No such file or directory"), "the device vanishes")
    # What has happened without a daemon is made up for; a link is followed.
    host.stop()
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "1").symlink_to(tmp_path / "away" / "1")
    host.start()
    assert run(host, guest, "stat -c %t:%T /dev/late") == "1:b"
    os.unlink(tmp_path / "away" / "1" / "dev")
    until(lambda: run(host, guest, "ls /dev/late").endswith("No such file or directory"), "the device vanishes")
    # Something else of that name is no device.
    (tmp_path / "away" / "1" / "dev").write_text("no device")
    host.command("restart", "--force", guest)
    assert run(host, guest, "ls /dev/late").endswith("No such file or directory")
    os.unlink(tmp_path / "away" / "1" / "dev")
    os.mknod(tmp_path / "away" / "1" / "dev", stat.S_IFCHR, os.makedev(1, 11))
    until(lambda: run(host, guest, "stat -c %t:%T /dev/late") == "1:b", "the device appears")


def test_hostile_paths(host: Daemon, guest: str, disk: str) -> None:
    """Links that a guest puts in the way lead nowhere but around in the guest."""
    run(host, guest, "ln -s ../../../../../../../../dev /up; ln -s /proc/1/root /magic; ln -s /etc/passwd /dev/link")
    add(host, guest, "up", "unix-block", f"source={disk}", "path=/up/planted")
    assert run(host, guest, f"head -c {len(MARK)} /dev/planted") == MARK
    assert not os.path.exists("/dev/planted")
    host.command("config", "device", "add", guest, "m", "unix-block", f"source={disk}", "path=/magic/x", check=False)
    assert not os.path.exists("/x")
    add(host, guest, "link", "unix-block", f"source={disk}", "path=/dev/link")
    assert run(host, guest, f"head -c {len(MARK)} /etc/passwd") == MARK
    strip(host, guest)
    assert (
        run(host, guest, "head -c 4 /etc/passwd; ls /dev/planted") == "rootls: /dev/planted: No such file or directory"
    )
    run(host, guest, "rm /up /magic /dev/link")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("unix-char",), 'missing the required "source" or "path" property'),
        (("unix-char", "path=/dev/nonexistent"), "Source '/dev/nonexistent' of device 'bad' does not exist"),
        (("unix-char", "path=/dev/nonexistent", "required=maybe"), "required"),
        (("unix-block", f"path={CONTROL}"), f"Source '{CONTROL}' of device 'bad' is not a block device"),
        (("unix-char", "path=/etc/passwd"), "is not a character device"),
        (("unix-char", "path=dev/x"), "an absolute path is needed"),
        (("unix-char", f"source={CONTROL}", "path=/dev/../../x"), "must not contain '..'"),
        (("unix-char", "path=/dev/x", "major=1"), "needs both major and minor"),
        (("unix-char", "path=/dev/x", "major=5000", "minor=1"), "major"),
        (("unix-char", f"path={CONTROL}", "mode=999"), "Invalid mode '999'"),
        (("unix-char", f"path={CONTROL}", "uid=4000000000"), "Id 4000000000 is none of the ids of the instance"),
        (("unix-char", f"source={CONTROL}", "path=/etc"), "/etc"),
        (("unix-hotplug", "vendorid=1234"), "not supported"),
    ],
)
def test_what_cannot_be_had_changes_nothing(host: Daemon, guest: str, words: tuple[str, ...], text: str) -> None:
    major, minor = numbers(CONTROL)
    assert text in refused(host, "config", "device", "add", guest, "bad", *words)
    assert devices_of(host, guest) == {}
    assert CONTROL not in run(host, guest, "cat /proc/mounts; ls /dev/*")
    run(host, guest, f"mknod /tmp/own c {major} {minor}")
    assert not may_open(host, guest, "/tmp/own")


def test_two_at_one_path(host: Daemon, guest: str, tmp_path: Path) -> None:
    add(host, guest, "one", "unix-char", f"path={CONTROL}")
    assert f"uses the same path '{CONTROL}'" in refused(
        host, "config", "device", "add", guest, "two", "disk", f"source={tmp_path}", f"path={CONTROL}"
    )


def test_profile_gives_to_all_or_none(host: Daemon, guests: tuple[str, str], disk: str) -> None:
    name = unique("p")
    host.command("profile", "create", name)
    for guest in guests:
        host.command("profile", "add", guest, name)
    try:
        host.command("profile", "device", "add", name, "data", "unix-block", f"source={disk}", "path=/dev/data")
        assert [run(host, guest, f"head -c {len(MARK)} /dev/data") for guest in guests] == [MARK, MARK]
        # The second guest, being privileged, could have this owner.
        said = refused(host, "profile", "device", "set", name, "data", "uid=4000000000", "path=/dev/other")
        assert f"Instance '{guests[0]}': Id 4000000000" in said
        assert host.command("profile", "device", "get", name, "data", "path").stdout == "/dev/data\n"
        assert [run(host, guest, f"head -c {len(MARK)} /dev/data; ls /dev/other")[: len(MARK)] for guest in guests] == [
            MARK
        ] * 2
        host.command("config", "device", "override", guests[0], "data", "path=/dev/mine")
        assert may_open(host, guests[0], "/dev/mine")
        assert not may_open(host, guests[0], "/dev/data")
        host.command("profile", "device", "remove", name, "data")
        assert may_open(host, guests[0], "/dev/mine")
        assert not may_open(host, guests[1], "/dev/data")
    finally:
        strip(host, guests[0])
        for guest in guests:
            host.command("profile", "remove", guest, name)
        host.command("profile", "delete", name)
