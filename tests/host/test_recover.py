"""The database is lost and what lies in the storage pools is found again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import tree
from tests.support.daemon import Daemon
from tests.support.wait import until

POOLS = ("btrfs", "dir")
ROOT_DEVICE = {"type": "disk", "path": "/", "pool": "dir"}
Lose = Callable[[], None]


@pytest.fixture
def host(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> Daemon:
    """Return a daemon with a pool of each driver, called like it, and the image busybox."""
    daemon = make_daemon()
    daemon.start()
    preseed = {
        "storage_pools": [
            {"name": "btrfs", "driver": "btrfs", "config": {"size": "1GiB"}},
            {"name": "dir", "driver": "dir", "config": {"user.mark": "pool"}},
        ],
        "profiles": [{"name": "default", "devices": {"root": ROOT_DEVICE}}],
    }
    daemon.command("admin", "init", "--preseed", input=json.dumps(preseed))
    daemon.import_image("busybox", busybox_files)
    return daemon


def lose_database(daemon: Daemon, *, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Have the database of a daemon gone, and start another one."""
    daemon.stop()
    shutil.rmtree(f"{daemon.dir}/database")
    meanwhile()
    daemon.start()


def volume(daemon: Daemon, name: str, pool: str = "dir") -> Path:
    return Path(daemon.dir, "storage-pools", pool, "containers", name)


def described(daemon: Daemon, name: str) -> dict[str, Any]:
    """Return what is to be the same again."""
    found: dict[str, Any] = daemon.request("GET", f"/1.0/instances/{name}?recursion=1")
    for key in ("last_used_at", "state"):
        found.pop(key, None)
    return found


def recover(daemon: Daemon, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return daemon.command("admin", "recover", "--yes", *args, check=check)


def test_everything_is_there_again(host: Daemon) -> None:
    for pool in POOLS:
        name = f"c-{pool}"
        host.command("init", "busybox", name, "--storage", pool, "-c", "user.mark=yes", "-c", "limits.memory=64MiB")
        host.command("config", "device", "add", name, "d1", "disk", "source=/tmp", "path=/d1")
        os.mkdir(f"{volume(host, name, pool)}/rootfs/all")
        tree.build(f"{volume(host, name, pool)}/rootfs/all", files=20)
        host.command("storage", "volume", "create", pool, "my_data")
        host.command("storage", "volume", "attach", pool, "my_data", name, "/data")
        Path(host.dir, "storage-pools", pool, "custom/default_my_data/note").write_text(pool)
        host.command("storage", "volume", "snapshot", pool, "my_data", "v0")
        host.command("snapshot", name, "s0")
        host.command("config", "set", name, "user.mark=changed")
        host.command("snapshot", name, "s1")
    before = {pool: described(host, f"c-{pool}") for pool in POOLS}
    files = {pool: tree.describe(f"{volume(host, f'c-{pool}', pool)}/rootfs") for pool in POOLS}
    lose_database(host)
    assert host.instances() == {}
    # Nothing is made in the place of what is only unknown.
    refused = host.command("storage", "create", "dir", "dir", check=False)
    assert "admin recover" in refused.stderr
    told = recover(host, "--profiles").stdout
    assert 'Container "c-btrfs" on pool "btrfs" in project "default" (includes 2 snapshots)' in told
    assert 'Volume "my_data" on pool "dir" in project "default" (includes 1 snapshots)' in told
    assert "Recovered 4 of 4" in told
    for pool in POOLS:
        assert described(host, f"c-{pool}") == before[pool]
        assert tree.describe(f"{volume(host, f'c-{pool}', pool)}/rootfs") == files[pool]
        host.command("restore", f"c-{pool}", "s0")
        assert host.request("GET", f"/1.0/instances/c-{pool}")["config"]["user.mark"] == "yes"
        host.command("start", f"c-{pool}")
        assert host.command("exec", f"c-{pool}", "--", "cat", "/data/note").stdout == pool
        host.command("stop", "--force", f"c-{pool}")
        host.command("storage", "volume", "restore", pool, "my_data", "v0")
    pools = {pool["name"]: pool["config"] for pool in host.request("GET", "/1.0/storage-pools?recursion=1")}
    assert pools["dir"]["user.mark"] == "pool"
    assert pools["btrfs"] == {"size": "1GiB", "source": f"{host.dir}/disks/btrfs.img"}
    assert recover(host).stdout == "Nothing unknown was found\n"


def test_what_runs_goes_on(host: Daemon) -> None:
    host.command("launch", "busybox", "c1")
    host.command("config", "device", "add", "c1", "d1", "disk", "source=/tmp", "path=/d1")
    host.command("exec", "c1", "--", "touch", "/run/here")
    host.command("launch", "busybox", "c2")
    before = described(host, "c1")
    lose_database(host)
    refused = host.command("init", "busybox", "c1", check=False)
    assert refused.returncode
    run = Path(host.dir, "run", "instances")
    os.rename(run / "c2/devices.json", run / "c2/moved")
    done = recover(host, "--profiles", check=False)
    assert done.returncode == 1
    assert "Instance 'c2' runs, and nothing says which devices it has (end it and try again: kill -KILL " in done.stderr
    os.rename(run / "c2/moved", run / "c2/devices.json")
    recover(host)
    assert host.instances() == {"c1": "Running", "c2": "Running"}
    assert described(host, "c1") == before
    host.command("exec", "c1", "--", "test", "-e", "/run/here", "-a", "-d", "/d1")
    host.command("config", "device", "remove", "c1", "d1")
    host.command("exec", "c1", "--", "sh", "-c", "! ls /d1/*")
    host.command("restart", "--force", "c1")
    host.signal(signal.SIGKILL)
    host.start()
    assert host.instances() == {"c1": "Running", "c2": "Running"}


def test_what_is_not_whole_is_not_taken(host: Daemon) -> None:
    for name in ("c1", "c2"):
        host.command("init", "busybox", name)
    host.command("snapshot", "c1", "s0")
    host.command("snapshot", "c1", "s1")

    def damage() -> None:
        pool = volume(host, "c1").parent.parent
        half = pool / "containers/half"
        shutil.copytree(volume(host, "c1"), half, symlinks=True)
        (half / "backup.yaml").unlink()
        shutil.copytree(volume(host, "c1"), pool / "containers/copied", symlinks=True)
        shutil.copytree(volume(host, "c1"), pool / ".staging/00/c3", symlinks=True)
        shutil.copytree(volume(host, "c1"), pool / ".trash/c4", symlinks=True)
        os.symlink(volume(host, "c1"), pool / "containers/linked")
        # It went to an older snapshot just before: what it says about itself is of then.
        path = volume(host, "c1") / "backup.yaml"
        said = yaml.safe_load(path.read_text())
        said["snapshots"][1]["name"] = "s9"
        path.write_text(yaml.safe_dump(said))

    lose_database(host, meanwhile=damage)
    done = recover(host, "--profiles", check=False)
    assert done.returncode == 1
    assert "containers/half is not taken: it has no backup.yaml" in done.stdout
    assert "containers/copied is not taken: its backup.yaml is of instance 'c1'" in done.stdout
    assert "Snapshot 's9' of instance 'c1' is gone" in done.stdout
    assert host.instances() == {"c1": "Stopped", "c2": "Stopped"}
    assert [s["name"] for s in host.request("GET", "/1.0/instances/c1/snapshots?recursion=1")] == ["s0", "s1"]
    refused = host.command("copy", "c1", "half", check=False)
    assert "is there already, and is no volume that this server knows" in refused.stderr
    assert volume(host, "half").exists()


HOSTILE = {
    "no-yaml": "{",
    "no-map": "text\n",
    "bomb": "a: &a [x, x]\nb: &b [*a, *a]\ncontainer: {name: *b}\n",
    "machine": "container: {name: NAME, type: virtual-machine}\npool: {name: dir}\n",
    "unknown-key": "container: {name: NAME, config: {no.such: key}}\npool: {name: dir}\n",
    "types": "container: {name: NAME, config: {user.x: [1]}}\npool: {name: dir}\n",
    "device": "container: {name: NAME, devices: {d: {type: disk, no: key}}}\npool: {name: dir}\n",
    "snapshot": "container: {name: NAME}\npool: {name: dir}\nsnapshots: [{name: '..'}]\n",
    "no-profile": "container: {name: NAME, profiles: [3]}\npool: {name: dir}\n",
}


def test_what_a_backup_yaml_says_is_checked(host: Daemon) -> None:
    host.command("init", "busybox", "c1")

    def damage() -> None:
        for name, text in HOSTILE.items():
            shutil.copytree(volume(host, "c1"), volume(host, f"x-{name}"), symlinks=True)
            (volume(host, f"x-{name}") / "backup.yaml").write_text(text.replace("NAME", f"x-{name}"))
        shutil.copytree(volume(host, "c1"), volume(host, "x-link"), symlinks=True)
        (volume(host, "x-link") / "backup.yaml").unlink()
        os.symlink("/etc/shadow", volume(host, "x-link") / "backup.yaml")
        os.mkfifo(volume(host, "x-link") / "fifo")
        shutil.copytree(volume(host, "x-link"), volume(host, "x-fifo"), symlinks=True, ignore=lambda *_: ["fifo"])
        (volume(host, "x-fifo") / "backup.yaml").unlink()
        os.mkfifo(volume(host, "x-fifo") / "backup.yaml")

    lose_database(host, meanwhile=damage)
    done = recover(host, "--profiles", check=False)
    assert done.returncode == 1
    for name in (*HOSTILE, "link", "fifo"):
        line = next(line for line in done.stdout.splitlines() if f"/x-{name} is not taken: " in line)
        assert "root:" not in line
    assert host.instances() == {"c1": "Stopped"}


def test_what_is_needed_and_gone_is_named(host: Daemon, need: Callable[..., None]) -> None:
    need("dnsmasq", "nft")
    host.command("project", "create", "work", "-c", "features.images=false", "-c", "features.profiles=false")
    host.command("profile", "create", "web")
    host.command("profile", "set", "web", "user.web=1")
    host.command("profile", "device", "add", "web", "d1", "disk", "source=/tmp", "path=/d1")
    host.command("network", "create", "net0", "ipv4.address=10.201.7.1/24", "ipv6.address=none")
    host.command("init", "busybox", "c1", "-p", "default", "-p", "web", "-n", "net0")
    host.command("init", "busybox", "c2", "--project", "work")
    before = described(host, "c1")
    lose_database(host)
    done = recover(host, check=False)
    assert done.returncode == 1
    for line in ('Profile "web" in project "default"', 'Project "work"', 'Network "net0" in project "default"'):
        assert f" - {line}\n" in done.stdout
    assert "--profiles" in done.stderr
    assert host.instances() == {}
    assert host.request("GET", "/1.0/storage-pools") == []
    assert os.listdir(f"{host.dir}/storage-pools/dir/containers")
    host.command("project", "create", "work", "-c", "features.images=false", "-c", "features.profiles=false")
    host.command("network", "create", "net0", "ipv4.address=10.201.7.1/24", "ipv6.address=none")
    recover(host, "--profiles")
    assert described(host, "c1") == before
    assert host.request("GET", "/1.0/profiles/web")["config"] == {"user.web": "1"}
    assert [i["name"] for i in host.request("GET", "/1.0/instances?recursion=1&project=work")] == ["c2"]
    host.command("delete", "c2", "--project", "work")


def test_a_profile_that_is_another_now_is_told(host: Daemon) -> None:
    host.command("profile", "device", "add", "default", "d1", "disk", "source=/tmp", "path=/d1")
    host.command("init", "busybox", "c1")
    lose_database(host)
    done = recover(host)
    assert ' - Instance "c1" loses device "d1", which a profile gave it\n' in done.stdout
    assert host.request("GET", "/1.0/instances/c1")["devices"] == {"root": ROOT_DEVICE}


def test_pools_are_found_wherever_they_are(host: Daemon, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o711)
    host.command("storage", "create", "away", "dir", f"source={tmp_path}")
    host.command("init", "busybox", "c1", "--storage", "away")
    host.command("init", "busybox", "c2", "--storage", "btrfs")

    def take_away() -> None:
        os.unlink(f"{host.dir}/storage-pools/away")
        inside = host.netns.command() if host.netns else []
        subprocess.run([*inside, "umount", f"{host.dir}/storage-pools/btrfs"], check=True)
        os.rmdir(f"{host.dir}/storage-pools/btrfs")

    lose_database(host, meanwhile=take_away)
    missing = recover(host, "other=dir,/nowhere", check=False)
    assert missing.stderr.startswith("Error: No storage pool lies in '/nowhere'")
    assert not os.path.lexists(f"{host.dir}/storage-pools/other")
    empty = recover(host, f"other=btrfs,{host.dir}/none", check=False)
    assert empty.returncode == 1
    assert not os.path.lexists(f"{host.dir}/storage-pools/other")
    # Looking changes nothing: who does not agree has what was there before.
    looked = host.command("admin", "recover", "btrfs=btrfs", input="no\n").stdout
    assert 'Container "c2"' in looked
    assert not os.path.ismount(f"{host.dir}/storage-pools/btrfs")
    recover(host, f"away=dir,{tmp_path}")
    recover(host, "--profiles")
    assert host.instances() == {"c1": "Stopped", "c2": "Stopped"}
    assert host.request("GET", "/1.0/storage-pools/away")["config"]["source"] == str(tmp_path)
    for name in ("c1", "c2"):
        host.command("start", name)


def test_recovering_is_roots(host: Daemon) -> None:
    script = """
import http.client, socket, sys
client = http.client.HTTPConnection("x"); client.sock = socket.socket(socket.AF_UNIX)
client.sock.connect(sys.argv[1])
client.request("POST", "/internal/recover/validate", "{}")
sys.exit(client.getresponse().status != 403)
"""
    command = ["/usr/bin/python3", "-c", script, f"{host.dir}/unix.socket"]
    subprocess.run(command, user=1, group=0, extra_groups=[], check=True)


def test_volumes_of_images_are_made_anew(host: Daemon, busybox_files: list[str]) -> None:
    host.command("init", "busybox", "c1")
    lose_database(host)
    recover(host, "--profiles")
    host.command("image", "import", *busybox_files, "--alias", "busybox")
    host.command("launch", "busybox", "c2")
    assert until(lambda: not os.listdir(f"{host.dir}/storage-pools/dir/.trash"), "the old one is away")


def test_what_nobody_knows_ends_with_the_host(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    host = make_daemon()
    host.start()
    host.command("admin", "init", "--minimal")
    host.import_image("busybox", busybox_files)
    host.command("launch", "busybox", "c1")
    lose_database(host)
    assert host.signal(signal.SIGPWR) == 0
    assert os.listdir(f"{host.dir}/run/instances") == []
    host.start()
    recover(host, "--profiles")
    assert host.instances() == {"c1": "Stopped"}


def test_a_pool_that_is_away_keeps_no_other_from_being_recovered(host: Daemon) -> None:
    host.command("init", "busybox", "c1")
    host.stop()
    with contextlib.closing(sqlite3.connect(f"{host.dir}/database/pylxc.db")) as database:
        database.execute("PRAGMA foreign_keys=ON")
        database.execute("DELETE FROM instances")
        database.execute("DELETE FROM storage_volumes WHERE type = 'container'")
        database.commit()
    inside = host.netns.command() if host.netns else []
    subprocess.run([*inside, "umount", f"{host.dir}/storage-pools/btrfs"], check=True)
    os.rename(f"{host.dir}/disks/btrfs.img", f"{host.dir}/disks/away")
    host.start()
    done = recover(host, check=False)
    assert done.returncode == 1
    assert "Storage pool 'btrfs' is unavailable" in done.stdout
    assert host.instances() == {"c1": "Stopped"}
    os.rename(f"{host.dir}/disks/away", f"{host.dir}/disks/btrfs.img")
