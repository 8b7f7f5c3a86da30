"""Custom volumes, seen from inside of busybox guests: shared, hot-plugged; and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pylxc.client import Client
from tests.support.daemon import ApiError, Daemon, unique
from tests.support.volumes import POOLS, devices, directory, refused, run, snapshots, volume_url


@pytest.fixture(scope="module")
def host(pools_daemon: Daemon) -> Daemon:
    return pools_daemon


# Instances


def test_shared_by_guests_of_different_id_maps(
    host: Daemon, guests: tuple[str, str, str], pool: str, volume: str
) -> None:
    """What one writes all see, with the same owners, also after it was detached and attached again."""
    first, isolated, privileged = guests
    for guest in guests:
        host.command("storage", "volume", "attach", pool, volume, guest, f"/{volume}")
    run(host, first, f"cd /{volume} && echo one > a && chown 1000:2000 a && mkdir d && chmod 4755 a")
    for guest in (isolated, privileged):
        assert run(host, guest, f"cd /{volume} && cat a && stat -c '%u %g %a' a") == "one\n1000 2000 4755"
    run(host, isolated, f"echo two > /{volume}/d/b")
    used_by = host.request("GET", volume_url(pool, volume))["used_by"]
    assert used_by == sorted(f"/1.0/instances/{guest}" for guest in guests)
    host.command("storage", "volume", "detach", pool, volume, first)
    assert run(host, first, f"ls -A /{volume}") == ""
    host.command("storage", "volume", "attach", pool, volume, first, "again", "/again")
    assert run(host, first, "cat /again/a /again/d/b") == "one\ntwo"
    host.command("restart", "--force", first)
    assert run(host, first, "cat /again/d/b && stat -c '%u %g %a' /again/a") == "two\n1000 2000 4755"
    for guest in guests:
        host.command("storage", "volume", "detach", pool, volume, guest)


def test_several_on_one_guest(host: Daemon, guests: tuple[str, str, str]) -> None:
    """Two volumes, one of them twice, read-only the second time; the guest's root cannot change that."""
    guest, one, two = guests[0], unique("v"), unique("v")
    host.command("storage", "volume", "create", "dir", one)
    host.command("storage", "volume", "create", "btrfs", two)
    host.command("storage", "volume", "attach", "dir", one, guest, "/one")
    assert "uses the same path '/one'" in refused(host, "attach", "btrfs", two, guest, "//one/")
    host.command("storage", "volume", "attach", "btrfs", two, guest, "/deep/er/two")
    device = ("pool=dir", f"source={one}", "path=/ro", "readonly=true")
    host.command("config", "device", "add", guest, "ro", "disk", *device)
    run(host, guest, "echo 1 > /one/file; echo 2 > /deep/er/two/file")
    assert run(host, guest, "cat /ro/file /deep/er/two/file") == "1\n2"
    write = "touch /ro/x 2>&1; true"
    tried = run(host, guest, f"{write}; mount -o remount,rw /ro; mount -o remount,bind,rw /ro; {write}")
    assert tried.count("Read-only file system") == 2
    assert refused(host, "detach", "dir", one, guest).startswith("More than one device matches")
    host.command("storage", "volume", "detach", "dir", one, guest, "ro")
    host.command("storage", "volume", "detach", "dir", one, guest)
    host.command("storage", "volume", "detach", "btrfs", two, guest)
    assert refused(host, "detach", "dir", one, guest) == "No device found for this storage volume"


def test_by_a_profile(host: Daemon, volume: str, pool: str) -> None:
    """A profile gives it to running and new guests; a second use of its path is undone whole."""
    profile, guest = unique("p"), unique("c")
    host.command("profile", "create", profile)
    host.command("launch", "busybox", guest, "-p", "default", "-p", profile)
    host.command("storage", "volume", "attach-profile", pool, volume, profile, "/data")
    run(host, guest, "echo x > /data/file")
    assert host.request("GET", volume_url(pool, volume))["used_by"] == [f"/1.0/profiles/{profile}"]
    assert refused(host, "delete", pool, volume) == "The storage volume is still in use"
    assert "in use by running instances" in refused(host, "rename", pool, volume, "other")
    host.command("stop", "--force", guest)
    new = unique("v")
    host.command("storage", "volume", "rename", pool, volume, new)
    assert devices(host, "profiles", profile)[volume]["source"] == new
    host.command("start", guest)
    assert run(host, guest, "cat /data/file") == "x"
    host.command("storage", "volume", "detach-profile", pool, new, profile)
    assert run(host, guest, "ls -A /data") == ""
    host.command("storage", "volume", "delete", pool, new)
    assert not os.path.exists(directory(host, pool, new))


def test_unmapped(host: Daemon, guests: tuple[str, str, str]) -> None:
    """With security.unmapped guests see the host's ids, and what runs with it keeps that from changing."""
    guest, name = guests[0], unique("v")
    host.command("storage", "volume", "create", "dir", name, "security.unmapped=true")
    Path(directory(host, "dir", name), "of-host-root").touch()
    host.command("storage", "volume", "attach", "dir", name, guest, "/unmapped")
    assert run(host, guest, "stat -c %u /unmapped/of-host-root") == "65534"
    complaint = refused(host, "set", "dir", name, "security.unmapped=false")
    assert complaint.startswith("Cannot modify shifting with running instances using the volume")
    host.command("storage", "volume", "detach", "dir", name, guest)
    host.command("storage", "volume", "set", "dir", name, "security.unmapped=false")
    host.command("storage", "volume", "attach", "dir", name, guest, "/unmapped")
    assert run(host, guest, "stat -c %u /unmapped/of-host-root") == "0"
    host.command("storage", "volume", "detach", "dir", name, guest)


def test_one_that_is_missing(host: Daemon) -> None:
    guest = unique("c")
    host.command("init", "busybox", guest)
    words = ("config", "device", "add", guest, "data", "disk", "pool=dir", "source=nowhere", "path=/data")
    failed = host.command(*words, check=False)
    assert failed.stderr.startswith("Error: Device 'data': Storage volume not found")
    host.command(*words, "required=false")
    host.command("start", guest)
    assert run(host, guest, "grep -c /data /proc/mounts; true") == "0"


def test_size(host: Daemon, guests: tuple[str, str, str]) -> None:
    """A guest cannot write more, also after the volume was restored; the limit follows a change at once."""
    guest, name = guests[1], unique("v")
    host.command("storage", "volume", "create", "btrfs", name, "size=10MiB")
    host.command("storage", "volume", "snapshot", "btrfs", name, "empty")
    host.command("storage", "volume", "restore", "btrfs", name, "empty")
    host.command("storage", "volume", "attach", "btrfs", name, guest, "/small")
    fill = "dd if=/dev/urandom of=/small/f bs=1M count=15 2>&1; sync; rm -f /small/f; sync"
    assert "quota" in run(host, guest, fill).lower()
    host.command("storage", "volume", "set", "btrfs", name, "size=40MiB")
    assert "15+0 records out" in run(host, guest, fill)
    assert host.request("GET", f"{volume_url('btrfs', name)}/state")["usage"]["total"] == 40 << 20
    host.command("storage", "volume", "detach", "btrfs", name, guest)
    assert "cannot limit the size" in refused(host, "copy", f"btrfs/{name}", f"dir/{name}")
    assert refused(host, "show", "dir", name) == "Storage volume not found"


# What is refused, and who is kept out


def test_names_with_tricks(host: Daemon) -> None:
    host.command("storage", "volume", "create", "dir", "victim")
    before = host.request("GET", "/1.0/storage-pools/dir/volumes")
    victim = volume_url("dir", "victim")
    for name in ("..", ".", "a/b", "/etc", "", "new\nline", "x" * 250, "\x1b[31m", "-x"):
        paths = ("/1.0/storage-pools/dir/volumes/custom", victim, f"{victim}/snapshots")
        for path in paths[: 2 if name in ("", "-x") else 3]:  # for a snapshot these are a name and none
            with pytest.raises(ApiError) as error:
                host.request("POST", path, {"name": name})
            assert (error.value.status, "\n" in error.value.text) == (400, False), (path, name)
    assert host.request("GET", "/1.0/storage-pools/dir/volumes") == before
    host.command("storage", "volume", "delete", "dir", "victim")


def test_two_projects_may_use_one_name(host: Daemon) -> None:
    """Also names that make one word with a project's; and a project without volumes of its own uses the default's."""
    project, shared = unique("p"), unique("p")
    host.command("project", "create", project, "-c", "features.images=false", "-c", "features.profiles=false")
    host.command("project", "create", shared, "-c", "features.storage.volumes=false")
    for words in (["--project", project, "v"], [f"{project}_v"], [f"default_{project}_v"]):
        host.command("storage", "volume", "create", "dir", *words)
    assert len([name for name in os.listdir(f"{host.dir}/storage-pools/dir/custom") if project in name]) == 3
    listed = f"/1.0/storage-pools/dir/volumes/custom?project={project}"
    assert host.request("GET", listed) == [f"{volume_url('dir', 'v')}?project={project}"]
    guest = unique("c")
    host.command("launch", "busybox", guest, "--project", project)
    host.command("storage", "volume", "attach", "dir", "v", guest, "/v", "--project", project)
    used_by = host.request("GET", f"{volume_url('dir', 'v')}?project={project}")["used_by"]
    assert used_by == [f"/1.0/instances/{guest}?project={project}"]
    assert f"{project}_v" in host.command("storage", "volume", "list", "dir", "--project", shared).stdout
    moved = refused(host, "move", "dir/v", "dir/v", "--project", project, "--target-project", "default")
    assert moved.startswith("Volume is still in use by running instances")
    host.command("delete", "--force", guest, "--project", project)
    host.command("storage", "volume", "move", "dir/v", "dir/v", "--project", project, "--target-project", "default")
    for name in ("v", f"{project}_v", f"default_{project}_v"):
        host.command("storage", "volume", "delete", "dir", name)
    host.command("project", "delete", project)
    host.command("project", "delete", shared)


def test_users_of_the_host_are_kept_out(host: Daemon, guests: tuple[str, str, str], pool: str, volume: str) -> None:
    """Whatever a guest does with the modes of a volume, set-uid programs in it are nobody's on the host."""
    host.command("storage", "volume", "attach", pool, volume, guests[0], "/open")
    run(host, guests[0], "cp /bin/busybox /open/sh; chmod 4755 /open/sh; chmod 777 /open")
    program = f"{directory(host, pool, volume)}/sh"
    assert os.stat(program).st_mode & 0o4001 == 0o4001
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "true"]
    assert subprocess.run(command, capture_output=True, check=False, cwd="/").returncode != 0
    host.command("storage", "volume", "detach", pool, volume, guests[0])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "", {"name": "x"}, 400),
        ("POST", "", {"name": "x", "type": "container"}, 400),
        ("POST", "", {"name": "x", "type": "custom", "content_type": "block"}, 501),
        ("POST", "", {"name": "x", "type": "custom", "content_type": "cloud"}, 400),
        ("POST", "/custom", {"name": "x", "config": {"colour": "red"}}, 400),
        ("POST", "/custom", {"name": "x", "config": {"block.filesystem": "xfs"}}, 501),
        ("POST", "/custom", {"name": "x", "config": {"snapshots.schedule": "sometimes"}}, 400),
        ("POST", "/custom", {"name": "x", "config": {"size": "10MiB"}}, 501),
        ("POST", "/custom", {"name": "x", "config": {"security.shifted": "1", "security.unmapped": "1"}}, 400),
        ("POST", "/custom", {"name": "x", "source": {"type": "copy", "name": "none"}}, 404),
        ("POST", "/custom", {"name": "x", "source": {"type": "copy", "name": "there/none"}}, 404),
        ("POST", "/custom", {"name": "x", "source": {"type": "copy", "name": "there", "pool": "none"}}, 404),
        ("POST", "/custom", {"name": "there", "source": {"type": "copy", "name": "there", "refresh": True}}, 400),
        ("POST", "/custom", {"name": "x", "source": {"type": "migration", "name": "there"}}, 501),
        ("POST", "/custom", {"name": "there"}, 409),
        ("POST", "/custom/there", {"name": "there"}, 409),
        ("POST", "/custom/there", {"name": "x", "migration": True}, 501),
        ("POST", "/custom/there", {"name": "x", "pool": "none"}, 404),
        ("PUT", "/custom/none", {"config": {}}, 404),
        ("PUT", "/custom/there", {"restore": "none"}, 404),
        ("DELETE", "/custom/none", None, 404),
        ("DELETE", "/image/none", None, 400),
        ("GET", "/tape/there", None, 400),
        ("GET", "?filter=name", None, 400),
        ("POST", "/custom/there/snapshots", {"name": "s", "expires_at": "soon"}, 400),
        ("DELETE", "/custom/there/snapshots/none", None, 404),
        ("POST", "/custom/there/snapshots/none", {"name": "x"}, 404),
    ],
)
def test_bad_requests(host: Daemon, method: str, path: str, body: Any, status: int) -> None:
    if "there" not in {v["name"] for v in host.request("GET", "/1.0/storage-pools/dir/volumes?recursion=1")}:
        host.command("storage", "volume", "create", "dir", "there", "user.own=1")
    before = host.request("GET", "/1.0/storage-pools/dir/volumes?recursion=1")
    with pytest.raises(ApiError) as error:
        host.request(method, f"/1.0/storage-pools/dir/volumes{path}", body)
    assert error.value.status == status, error.value.text
    assert "\n" not in error.value.text
    assert host.request("GET", "/1.0/storage-pools/dir/volumes?recursion=1") == before


def test_the_python_api(host: Daemon, volume: str, pool: str) -> None:
    with Client(f"{host.dir}/unix.socket") as client:
        volumes, others = client.storage_pools.volumes(pool), client.storage_pools.volumes(POOLS[1 - POOLS.index(pool)])
        Path(directory(host, pool, volume), "file").write_text("before")
        volumes.snapshot(volume, "s0").wait()
        Path(directory(host, pool, volume), "file").write_text("after")
        volumes.restore(volume, "s0")
        assert Path(directory(host, pool, volume), "file").read_text() == "before"
        assert [one["name"] for one in volumes.snapshots(volume)] == [f"{volume}/s0"]
        others.copy(f"{volume}-2", pool, f"{volume}/s0").wait()
        assert f"{volume}-2" in others.names()
        assert others.state(f"{volume}-2")["total"] == 0
        volumes.delete_snapshot(volume, "s0").wait()
        volumes.move(volume, POOLS[1 - POOLS.index(pool)]).wait()
        assert others.get(volume)["used_by"] == []
        others.delete(volume)


def test_two_who_change_it_at_once(host: Daemon, volume: str, pool: str) -> None:
    """If-Match of an older state is refused; PATCH keeps what it does not name."""
    url = volume_url(pool, volume)
    host.request("PATCH", url, {"config": {"user.a": "1"}})
    host.request("PATCH", url, {"config": {"user.b": "2"}, "description": "what it is for"})
    found = host.request("GET", url)
    assert (found["config"], found["description"]) == ({"user.a": "1", "user.b": "2"}, "what it is for")
    answer = json.loads(host.send("PUT", url, b'{"config": {}}', {"If-Match": "0" * 64}))
    assert answer["error_code"] == 412
    assert host.request("GET", url) == found


# A daemon that dies


def test_the_daemon_dies_in_the_middle(host: Daemon) -> None:
    """A rename and a restore that had begun are finished, what was half made is gone."""
    guest, new, back = unique("c"), unique("v"), unique("v")
    host.command("init", "busybox", guest)
    for pool, volume in (("dir", f"{new}-old"), ("btrfs", back)):
        host.command("storage", "volume", "create", pool, volume)
        Path(directory(host, pool, volume), "file").write_text("before")
        host.command("storage", "volume", "snapshot", pool, volume, "s0")
        Path(directory(host, pool, volume), "file").write_text("after")
    host.command("storage", "volume", "attach", "dir", f"{new}-old", guest, "data", "/data")
    host.command("storage", "volume", "copy", f"btrfs/{back}", f"dir/{back}-half")
    host.signal(signal.SIGKILL)
    os.rename(directory(host, "dir", f"{new}-old"), directory(host, "dir", new))  # its snapshots are where they were
    with host.database() as database:
        database.execute("UPDATE storage_volumes SET new_name = ? WHERE name = ?", (new, f"{new}-old"))
        database.execute("UPDATE storage_volumes SET state = 'creating' WHERE name = ?", (f"{back}-half",))
        database.execute("UPDATE storage_volumes SET restoring = 's0' WHERE name = ?", (back,))
        of_new = "storage_volume_id = (SELECT id FROM storage_volumes WHERE new_name = ?)"
        database.execute(
            "INSERT INTO storage_volumes_snapshots (storage_volume_id, name, new_name, state, description, config, "
            "created_at) SELECT storage_volume_id, 'half', '', 'creating', '', '{}', created_at "
            f"FROM storage_volumes_snapshots WHERE name = 's0' AND {of_new}",
            (new,),
        )
        database.execute(f"UPDATE storage_volumes_snapshots SET new_name = 's1' WHERE name = 's0' AND {of_new}", (new,))
    host.start()
    for pool, volume in (("dir", f"{new}-old"), ("dir", f"{back}-half")):
        assert refused(host, "show", pool, volume) == "Storage volume not found"
        assert not os.path.exists(directory(host, pool, volume))
    assert devices(host, "instances", guest)["data"]["source"] == new
    assert Path(directory(host, "dir", new), "file").read_text() == "after"
    assert snapshots(host, "dir", new) == ["s1"]
    assert os.listdir(os.path.dirname(directory(host, "dir", new, "s1"))) == ["s1"]
    assert Path(directory(host, "btrfs", back), "file").read_text() == "before"
