"""Disk devices that come from the host or from memory, as busybox guests see them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.wait import until


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture(scope="module")
def guests(host: Daemon) -> dict[bool, str]:
    """Return two running guests, by whether they are privileged."""
    names = {False: unique("c"), True: unique("p")}
    for privileged, name in names.items():
        host.command("launch", "busybox", name, "-c", f"security.privileged={str(privileged).lower()}")
    return names


@pytest.fixture(params=[False, True], ids=["unprivileged", "privileged"])
def each(request: pytest.FixtureRequest, host: Daemon, guests: dict[bool, str]) -> Iterator[str]:
    """Return one of the guests, which loses its devices after the test."""
    yield guests[request.param]
    strip(host, guests[request.param])


@pytest.fixture
def guest(host: Daemon, guests: dict[bool, str]) -> Iterator[str]:
    yield guests[False]
    strip(host, guests[False])


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """Return a directory of the host on a file system of its own, whose mounts are shared, as systemd makes them."""
    made = tmp_path / "source"
    made.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "source", made], check=True)
    subprocess.run(["mount", "--make-shared", made], check=True)
    (made / "here").write_text("from the host\n")
    yield made
    subprocess.run(["umount", "-R", made], check=True)


def strip(host: Daemon, guest: str) -> None:
    body = host.request("GET", f"/1.0/instances/{guest}")
    host.request("PUT", f"/1.0/instances/{guest}", {**body, "devices": {}})


def add(host: Daemon, guest: str, name: str, *words: str) -> None:
    host.command("config", "device", "add", guest, name, "disk", *words)


def refused(host: Daemon, *words: str) -> str:
    done = host.command(*words, check=False)
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def run(host: Daemon, guest: str, script: str) -> str:
    return host.command("exec", guest, "--", "sh", "-c", f"({script}) 2>&1 || :").stdout.strip()


def devices_of(host: Daemon, guest: str) -> Any:
    return host.request("GET", f"/1.0/instances/{guest}")["devices"]


def is_privileged(host: Daemon, guest: str) -> bool:
    return bool(host.request("GET", f"/1.0/instances/{guest}")["config"]["security.privileged"] == "true")


def mount(path: Path) -> None:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "more", path], check=True)


@pytest.mark.parametrize("hot", [True, False], ids=["hot", "at start"])
def test_propagation(host: Daemon, each: str, source: Path, hot: bool) -> None:
    """What is mounted on the host later is seen where that is wanted; what a guest mounts by a privileged one only."""
    for word in ("private", "rslave", "shared", "unbindable"):
        add(host, each, word, f"source={source}", f"path=/d/{word}", f"propagation={word}", "recursive=true")
    add(host, each, "none", f"source={source}", "path=/d/none")
    if not hot:
        host.command("restart", "--force", each)
    mount(source / "later")
    (source / "later" / "file").write_text("x")
    assert run(host, each, "cd /d && ls */later/file") == "rslave/later/file\nshared/later/file"
    run(host, each, "mkdir /d/shared/own; mount -t tmpfs own /d/shared/own; touch /d/shared/own/guests")
    assert os.path.exists(source / "own" / "guests") == is_privileged(host, each)
    said = run(host, each, "mkdir -p /t; mount --bind /d/private /t && umount /t && mount --bind /d/unbindable /t")
    assert "Invalid argument" in said
    run(host, each, "umount /d/shared/own")


def test_recursive_and_readonly(host: Daemon, each: str, source: Path) -> None:
    """Below what is mounted read-only all is, and stays it in the hands of the guest's root."""
    mount(source / "below")
    (source / "below" / "file").write_text("x")
    add(host, each, "flat", f"source={source}", "path=/d/flat")
    add(host, each, "deep", f"source={source}", "path=/d/deep", "recursive=true", "readonly=true", "shift=true")
    for _ in range(2):
        assert run(host, each, "cd /d && ls */below/file") == "deep/below/file"
        assert "Read-only" in run(host, each, "touch /d/deep/below/x")
        assert "Read-only" in run(host, each, "touch /d/deep/x")
        host.command("restart", "--force", each)
    if not is_privileged(host, each):
        run(host, each, "for d in /d/deep /d/deep/below; do mount -o remount,bind,rw $d; touch $d/x; done")
        assert not os.path.exists(source / "x")
        assert not os.path.exists(source / "below" / "x")


def test_shift(host: Daemon, guest: str, source: Path) -> None:
    """Owners are the same on both sides, below the source too; where that cannot be, one line says so."""
    mount(source / "below")
    os.chown(source / "here", 1000, 1001)
    os.chmod(source, 0o777)
    os.chmod(source / "below", 0o777)
    add(host, guest, "raw", f"source={source}", "path=/d/raw")
    add(host, guest, "own", f"source={source}", "path=/d/own", "shift=true", "recursive=true")
    for _ in range(2):
        assert run(host, guest, "stat -c %u:%g /d/raw/here /d/own/here") == "65534:65534\n1000:1001"
        run(host, guest, "cd /d/own/below && echo x > made && chown 5:6 made")
        assert (os.stat(source / "below" / "made").st_uid, os.stat(source / "below" / "made").st_gid) == (5, 6)
        host.command("restart", "--force", guest)
    strip(host, guest)
    words = ("source=/proc/sys", "path=/d/proc", "shift=true")
    said = refused(host, "config", "device", "add", guest, "proc", "disk", *words)
    assert "The file system of '/proc/sys' cannot be mounted with shifted ids" in said
    assert devices_of(host, guest) == {}
    host.command("stop", "--force", guest)
    add(host, guest, "proc", *words)
    assert "The file system of '/proc/sys' cannot be mounted with shifted ids" in refused(host, "start", guest)
    host.command("config", "device", "remove", guest, "proc")
    host.command("start", guest)


def test_file_and_options(host: Daemon, each: str, source: Path) -> None:
    (source / "run").write_text("#!/bin/sh\necho ran\n")
    (source / "run").chmod(0o755)
    add(host, each, "file", f"source={source}/run", "path=/usr/bin/given")
    assert run(host, each, "given") == "ran"
    (source / "run").write_text("#!/bin/sh\necho ran anew\n")
    assert run(host, each, "given") == "ran anew"
    host.command("config", "device", "set", each, "file", "raw.mount.options=noexec,nosuid,noatime")
    assert "ermission denied" in run(host, each, "given")
    assert "noatime" in run(host, each, "grep given /proc/mounts")
    said = refused(host, "config", "device", "set", each, "file", "raw.mount.options=ro,uid=5")
    assert "Option 'uid=5' in raw.mount.options is none that a mounted directory takes" in said
    assert "ermission denied" in run(host, each, "given")


@pytest.mark.parametrize("kind", ["tmpfs:", "tmpfs-overlay:"])
def test_in_memory(host: Daemon, each: str, kind: str) -> None:
    run(host, each, "mkdir -m 750 /base; echo old > /base/old; mkdir /base/dir; touch /base/dir/gone; chown 3:4 /base")
    add(host, each, "mem", f"source={kind}", "path=/base", "size=1MiB", "raw.mount.options=nosuid,nr_inodes=100")
    assert run(host, each, "ls /base") == ("dir\nold" if kind == "tmpfs-overlay:" else "")
    filled = run(host, each, "cd /base && cat /dev/zero > big; stat -c %s big; rm big; echo new > new")
    assert "No space left" in filled
    assert 900_000 < int(filled.splitlines()[-1]) <= 1 << 20
    if kind == "tmpfs-overlay:":
        assert run(host, each, "stat -c '%u %g %a' /base") == "3 4 750"
        # A directory that takes the place of a deleted one shows nothing of it.
        assert run(host, each, "cd /base && rm -r dir && mkdir dir && ls -A dir && rm old && ls") == "dir\nnew"
        assert "cannot be changed" in refused(host, "config", "device", "set", each, "mem", "size=3MiB")
    else:
        host.command("config", "device", "set", each, "mem", "size=3MiB")
        assert "1048576\n" not in run(host, each, "cd /base && cat new && head -c 2500000 /dev/zero > big && ls")
        said = refused(host, "config", "device", "set", each, "mem", "size=1MiB")
        assert "does not take size=1048576" in said
        assert devices_of(host, each)["mem"]["size"] == "3MiB"
        assert run(host, each, "stat -c %s /base/big") == "2500000"
    host.command("restart", "--force", each)
    assert "new" not in run(host, each, "ls /base").split()
    run(host, each, "touch /base/newer")
    host.command("config", "device", "remove", each, "mem")
    assert run(host, each, "cd /base && cat old && ls dir; ls; grep /base /proc/mounts") == "old\ngone\ndir\nold"
    run(host, each, "rm -r /base")


def test_source_comes_and_goes(host: Daemon, guest: str, source: Path, tmp_path: Path) -> None:
    """One that is not required is not missed at start, is there when its source is, also when that is mounted."""
    late = tmp_path / "late"
    add(host, guest, "late", f"source={late}/data", "path=/late", "required=false")
    host.command("restart", "--force", guest)
    assert run(host, guest, "ls /late") == "ls: /late: No such file or directory"
    (tmp_path / "next" / "data").mkdir(parents=True)
    (tmp_path / "next" / "data" / "first").touch()
    os.rename(tmp_path / "next", late)
    until(lambda: run(host, guest, "ls /late") == "first", "the source appears")
    (source / "data").mkdir()
    (source / "data" / "mounted").touch()
    subprocess.run(["mount", "--bind", source, late], check=True)
    until(lambda: run(host, guest, "ls /late") == "mounted", "another file system is mounted there")
    subprocess.run(["umount", late], check=True)
    until(lambda: run(host, guest, "ls /late") == "first", "it is unmounted again")
    os.rename(late, tmp_path / "away")
    until(lambda: run(host, guest, "ls /late; grep /late /proc/mounts") == "", "the source vanishes")
    # A change of something else goes on meanwhile, and one of a required source that is gone is possible too.
    add(host, guest, "here", f"source={tmp_path}/away", "path=/here")
    os.rename(tmp_path / "away", late)
    until(lambda: run(host, guest, "ls /late") == "first", "the source is back")
    assert "does not exist" in refused(host, "config", "device", "set", guest, "here", "readonly=true")
    assert run(host, guest, "ls /here") == "data"
    host.command("config", "device", "remove", guest, "here")
    assert run(host, guest, "ls /here") == ""


def test_disk_below_a_disk(host: Daemon, each: str, source: Path) -> None:
    """Whatever their names are, what lies below is mounted after what lies above."""
    (source / "sub").mkdir()
    add(host, each, "z", f"source={source}", "path=/top")
    add(host, each, "a", "source=tmpfs:", "path=/top/sub", "size=1MiB")
    host.command("restart", "--force", each)
    assert run(host, each, "grep -c /top/sub /proc/mounts; cat /top/here") == "1\nfrom the host"


def test_hostile_targets(host: Daemon, each: str, source: Path) -> None:
    """Links that a guest puts in the way lead nowhere but around in the guest, at start as well."""
    run(
        host, each, "ln -s ../../../../../../../../../tmp /up; ln -s /proc/1/root/tmp /magic; ln -s /proc/self/cwd /cwd"
    )
    name = unique("planted")
    add(host, each, "up", f"source={source}", f"path=/up/{name}")
    add(host, each, "mem", "source=tmpfs-overlay:", f"path=/up/{name}-mem")
    host.command("config", "device", "add", each, "m", "disk", f"source={source}", f"path=/magic/{name}", check=False)
    host.command("config", "device", "add", each, "c", "disk", f"source={source}", f"path=/cwd/{name}", check=False)
    for device in ("m", "c"):
        host.command("config", "device", "remove", each, device, check=False)
    for _ in range(2):
        assert run(host, each, f"cat /tmp/{name}/here") == "from the host"
        assert not [path for path in ("/", "/tmp", "/proc/self/cwd") if os.path.lexists(f"{path}/{name}")]
        host.command("restart", "--force", each)
    strip(host, each)
    assert name not in Path("/proc/self/mountinfo").read_text()
    run(host, each, "rm /up /magic /cwd")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("source=relative", "path=/x"), "an absolute path is needed"),
        (("source=/srv", "path=../x"), "Invalid path '../x'"),
        (("source=/srv", "path=//"), "Invalid path '//'"),
        (("source=/nonexistent/it", "path=/x"), "Source path '/nonexistent/it' of disk device 'bad' does not exist"),
        (("source=/etc/passwd/it", "path=/x"), "Source path '/etc/passwd/it' of disk device 'bad' does not exist"),
        (("source=/dev/null", "path=/x"), "is a device (mount it and give the directory, or add it as unix-char)"),
        (("source=/etc", "path=/etc/passwd"), "/etc/passwd"),
        (("source=/etc/passwd", "path=/etc"), "/etc"),
        (("source=/etc", "path=/x", "size=1GiB"), "Only the root disk may have a size quota"),
        (("source=/etc", "path=/x", "propagation=sideways"), "sideways"),
        (("source=tmpfs:", "path=/x", "shift=true"), "'shift' property cannot be used with tmpfs:"),
        (("source=tmpfs:", "path=/x", "raw.mount.options=upperdir=/"), "Option 'upperdir=/' in raw.mount.options"),
        (
            ("source=tmpfs:", "path=/x", "raw.mount.options=mode=x"),
            "cannot mount tmpfs with mode=x: Invalid argument: '/x'",
        ),
        (("source=tmpfs-overlay:", "path=/etc/passwd"), "an overlay needs a directory: '/etc/passwd'"),
        (("source=ceph:a/b", "path=/x"), "Disk source 'ceph:a/b' is not supported"),
    ],
)
def test_what_cannot_be_had_changes_nothing(host: Daemon, guest: str, words: tuple[str, ...], text: str) -> None:
    had = run(host, guest, "cat /proc/mounts; cat /etc/passwd")
    assert text in refused(host, "config", "device", "add", guest, "bad", "disk", *words)
    assert devices_of(host, guest) == {}
    assert run(host, guest, "cat /proc/mounts; cat /etc/passwd") == had
