"""Projects: what is in them, their limits, what they share with the default project, and what moves between them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.projects import Project, project, refused
from tests.support.wait import until

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def pool(module_daemon: Daemon) -> None:
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))


def test_sums_of_limits(daemon: Daemon) -> None:
    with project(daemon, limits__memory="96MiB", limits__processes="150", limits__cpu="3") as made:
        with refused('has no "limits.cpu" config, either directly or via a profile'):
            made.make()
        all_of_them = {"limits.memory": "64MiB", "limits.processes": "100", "limits.cpu": "2"}
        first = made.make(config=all_of_them)
        with refused('Reached maximum aggregate value "3" for "limits.cpu"'):
            made.make(config=all_of_them)
        small = {"limits.memory": "32MiB", "limits.processes": "50", "limits.cpu": "1"}
        second = made.make(config=small)
        used = made.usage()
        assert (used["memory"], used["processes"], used["cpu"]) == ((96 * MIB, 96 * MIB), (150, 150), (3, 3))
        assert (used["instances"], used["containers"], used["virtual-machines"]) == ((-1, 2), (-1, 2), (-1, 0))
        with refused('Reached maximum aggregate value "96MiB" for "limits.memory"'):
            made.request("PATCH", f"instances/{second}", {"config": {"limits.memory": "33MiB"}})
        with refused('has no "limits.memory" config'):
            made.request("PATCH", f"instances/{second}", {"config": {"limits.memory": ""}})
        with refused("shares of the host"):
            made.request("PATCH", f"instances/{second}", {"config": {"limits.memory": "10%"}})
        with refused('"limits.memory" is too low: there currently are 96.00MiB'):
            made.set(limits__memory="95MiB")
        with refused("Reached maximum aggregate value"):
            made.make(source={"type": "copy", "source": first})
        made.set(limits__memory="1GiB", limits__processes="", limits__cpu="")
        copy = made.make(source={"type": "copy", "source": first})
        assert made.request("GET", f"instances/{copy}")["config"]["limits.memory"] == "64MiB"


def test_a_profile_counts_for_each_of_its_instances(daemon: Daemon) -> None:
    with project(daemon, limits__memory="100MiB") as made:
        made.request("PATCH", "profiles/default", {"config": {"limits.memory": "40MiB"}})
        made.make()
        made.make()
        with refused("Reached maximum aggregate value"):
            made.request("PATCH", "profiles/default", {"config": {"limits.memory": "60MiB"}})
        assert made.request("GET", "profiles/default")["config"] == {"limits.memory": "40MiB"}
        made.request("PATCH", "profiles/default", {"config": {"limits.memory": "50MiB"}})


def test_numbers_of_instances(daemon: Daemon) -> None:
    with project(daemon, limits__instances="2") as made:
        made.make()
        made.make()
        with refused("Reached maximum number of instances in project"):
            made.make()
        with refused('"limits.instances" is too low: there currently are 2 instances'):
            made.set(limits__instances="1")
        with refused('"limits.containers" is too low'):
            made.set(limits__containers="1")
        made.set(limits__instances="", limits__containers="2")
        with refused('Reached maximum number of instances of type "container"'):
            made.make()


def test_the_last_place_is_given_once(daemon: Daemon) -> None:
    def take(made: Project) -> int:
        try:
            made.make()
        except ApiError:
            return 0
        return 1

    with project(daemon, limits__instances="3") as made:
        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(take, [made] * 16)) == 3
        assert len(made.names("instances")) == 3


def test_what_failed_takes_no_place(daemon: Daemon) -> None:
    with project(daemon, limits__instances="1") as made:
        with refused("not found", 404):
            made.make(source={"type": "image", "alias": "nowhere"})
        kept = made.make()
        made.request("DELETE", f"instances/{kept}")
        made.make()


SCOPED = ("instances", "images", "images/aliases", "profiles", "networks", "operations", "events")


@pytest.mark.parametrize("path", SCOPED)
def test_a_project_that_is_not_there(daemon: Daemon, path: str) -> None:
    with refused("Project not found", 404):
        daemon.request("GET", f"/1.0/{path}?project=nowhere")


def test_what_is_asked_for_in_vain(daemon: Daemon) -> None:
    with refused("requesting all projects", 400):
        daemon.request("GET", "/1.0/instances?all-projects=true&project=default")
    done = daemon.command("--project", "nowhere", "list", check=False)
    assert (done.returncode, done.stderr) == (1, "Error: Project 'nowhere' not found (pylxc project list)\n")


def test_an_empty_project_is_the_default_one(daemon: Daemon) -> None:
    assert daemon.request("GET", "/1.0/profiles?project=") == daemon.request("GET", "/1.0/profiles")
    assert daemon.request("GET", "/1.0/projects/default?project=gone")["name"] == "default"


def test_networks_of_its_own(daemon: Daemon) -> None:
    bridge = {"type": "bridge", "config": {"ipv4.address": "none", "ipv6.address": "none"}}
    shared, own = unique("s")[:12], unique("n")[:12]
    nic = {"type": "nic", "name": "eth0"}
    daemon.request("POST", "/1.0/networks", {"name": shared, **bridge})
    try:
        with project(daemon, features__networks="true", limits__networks="1") as made:
            assert made.names("networks") == []
            made.request("POST", "networks", {"name": own, **bridge})
            assert made.names("networks") == [own]
            assert made.usage()["networks"] == (1, 1)
            assert own not in [n["name"] for n in daemon.request("GET", "/1.0/networks?recursion=1")]
            with refused("Network not found", 404):
                daemon.request("GET", f"/1.0/networks/{own}")
            for verb, path in (("DELETE", shared), ("GET", f"{shared}/state"), ("GET", f"{shared}/leases")):
                with refused("Network not found", 404):
                    made.request(verb, f"networks/{path}")
            with refused("already exists", 409):
                made.request("POST", "networks", {"name": shared, **bridge})
            with refused("Reached maximum number of networks"):
                made.request("POST", "networks", {"name": unique("n")[:12], **bridge})
            with refused(f"Network '{shared}' not found", 400):
                made.make(devices={"eth0": {**nic, "network": shared}})
            with refused(f"Network '{own}' not found", 400):
                daemon.request("POST", "/1.0/profiles", {"name": "x", "devices": {"eth0": {**nic, "network": own}}})
            guest = made.make(devices={"eth0": {**nic, "network": own}})
            assert made.request("GET", f"networks/{own}")["used_by"] == [f"/1.0/instances/{guest}?project={made.name}"]
            with refused("Only empty projects can be removed", 400):
                daemon.request("DELETE", made.url)
            with refused('"features.networks" cannot be disabled on non-empty projects', 400):
                made.set(features__networks="false")
            made.set(limits__networks="")
        with project(daemon) as without:
            assert shared in without.names("networks")
            with refused('"limits.networks" is too low'):
                daemon.request("PATCH", "/1.0/projects/default", {"config": {"limits.networks": "0"}})
    finally:
        daemon.request("DELETE", f"/1.0/networks/{shared}")


def shell(made: Project, name: str, script: str) -> str:
    """Run a script in a guest and return what it prints."""
    return made.daemon.command("exec", "--project", made.name, name, "--", "sh", "-c", script).stdout


@pytest.fixture(scope="module")
def image(module_daemon: Daemon, busybox_files: list[str]) -> str:
    return module_daemon.import_image("busybox", busybox_files)


def test_moving_between_projects(daemon: Daemon, image: str) -> None:
    with project(daemon, features__images="false") as here, project(daemon) as there:
        daemon.command("launch", "--project", here.name, image, "web", "-c", "user.note=kept")
        shell(here, "web", "echo one > /root/file")
        here.request("POST", "instances/web/snapshots", {"name": "s"})
        shell(here, "web", "echo two > /root/file")
        move = {"name": "web", "migration": True, "project": there.name}
        with refused("Instance must be stopped to be moved", 400):
            here.request("POST", "instances/web", move)
        daemon.command("stop", "--project", here.name, "--force", "web")
        with refused("Project not found", 404):
            here.request("POST", "instances/web", {**move, "project": "nowhere"})
        before = here.request("GET", "instances/web")
        here.request("POST", "instances/web", move)
        assert (here.names("instances"), there.names("instances")) == ([], ["web"])
        after = there.request("GET", "instances/web")
        for key in ("config", "devices", "profiles", "architecture", "created_at", "expanded_devices"):
            assert after[key] == before[key], key
        daemon.command("start", "--project", there.name, "web")
        assert shell(there, "web", "cat /root/file; hostname") == "two\nweb\n"
        there.request("PUT", "instances/web", {"restore": "s"})
        assert shell(there, "web", "cat /root/file") == "one\n"
        daemon.command("stop", "--project", there.name, "--force", "web")
        daemon.command("move", "--project", there.name, "web", "www", "--target-project", here.name, "--instance-only")
        assert here.request("GET", "instances?recursion=2")[0]["snapshots"] in (None, [])
        daemon.command("start", "--project", here.name, "www")
        assert shell(here, "www", "cat /root/file") == "one\n"


def test_what_cannot_move(daemon: Daemon) -> None:
    with project(daemon) as here, project(daemon, limits__instances="1", restricted="true") as there:
        profile = unique("p")
        here.request("POST", "profiles", {"name": profile})
        here.request("POST", "storage-pools/default/volumes/custom", {"name": "data"})
        disk = {"type": "disk", "pool": "default", "source": "data", "path": "/data"}
        move = {"migration": True, "project": there.name}
        first = here.make()
        for fields, text, status in (
            ({"profiles": ["default", profile]}, f"Profile '{profile}' not found", 404),
            ({"devices": {"data": disk}}, "Storage volume not found", 404),
            ({"config": {"security.nesting": "true"}}, "Container nesting is forbidden", 403),
        ):
            made = here.make(**fields)
            with refused(text, status):
                here.request("POST", f"instances/{made}", {"name": made, **move})
        there.make(first)
        with refused("already exists", 409):
            here.request("POST", f"instances/{first}", {"name": first, **move})
        with refused("Reached maximum number of instances"):
            here.request("POST", f"instances/{first}", {"name": "other", **move})
        assert there.names("instances") == [first]
        assert len(here.names("instances")) == 4


def test_a_root_disk_comes_along(daemon: Daemon) -> None:
    with project(daemon) as here, project(daemon) as there:
        there.request("PUT", "profiles/default", {})
        name = here.make()
        copy = {"type": "copy", "source": name, "project": here.name}
        there.request("POST", "instances", {"name": "copied", "source": copy})
        here.request("POST", f"instances/{name}", {"name": "moved", "migration": True, "project": there.name})
        for each in ("copied", "moved"):
            assert there.request("GET", f"instances/{each}")["devices"]["root"]["pool"] == "default"


def test_copies_to_another_project(daemon: Daemon, image: str) -> None:
    with project(daemon, features__images="false") as here, project(daemon) as there:
        daemon.command("init", "--project", here.name, image, "web", "-c", "user.note=kept")
        here.request("POST", "instances/web/snapshots", {"name": "s"})
        daemon.command("copy", "--project", here.name, "web", "web", "--target-project", there.name)
        daemon.command("copy", "--project", here.name, "web/s", "old", "--target-project", there.name)
        assert sorted(there.names("instances")) == ["old", "web"]
        assert there.request("GET", "instances/web")["config"]["user.note"] == "kept"
        assert there.request("GET", "instances/web/snapshots") == [
            f"/1.0/instances/web/snapshots/s?project={there.name}"
        ]
        profile = unique("p")
        here.request("POST", "profiles", {"name": profile, "config": {"user.a": "1"}})
        daemon.command("profile", "copy", "--project", here.name, profile, "same", "--target-project", there.name)
        assert there.request("GET", "profiles/same")["config"] == {"user.a": "1"}


def test_volumes_between_projects(daemon: Daemon) -> None:
    volumes = "storage-pools/default/volumes/custom"
    with project(daemon) as here, project(daemon) as there:
        here.request("POST", volumes, {"name": "data", "config": {"user.a": "1"}})
        here.request("POST", f"{volumes}/data/snapshots", {"name": "s"})
        user = here.make(devices={"d": {"type": "disk", "pool": "default", "source": "data", "path": "/d"}})
        move = ("storage", "volume", "move", "--project", here.name, "default/data")
        to = ("--target-project", there.name)
        done = daemon.command(*move, "default/data", *to, check=False)
        assert "still in use" in done.stderr
        daemon.command("storage", "volume", "copy", "--project", here.name, "default/data", "default/copy", *to)
        here.request("DELETE", f"instances/{user}")
        daemon.command(*move, "default/data", *to)
        assert (here.names(volumes), sorted(there.names(volumes))) == (
            [],
            ["copy", "copy/s", "data", "data/s"],
        )
        assert there.request("GET", f"{volumes}/data")["config"] == {"user.a": "1"}


def test_a_move_that_is_cut_off(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    tree = Path(daemon.dir) / "storage-pools/default"
    with project(daemon) as one, project(daemon) as two:
        one.make("web")
        (tree / f"containers/{one.name}_web/rootfs/data").mkdir(parents=True)
        for number in range(500):
            (tree / f"containers/{one.name}_web/rootfs/data/{number}").write_text(str(number))
        one.request("POST", "instances/web/snapshots", {"name": "s"})
        here, there = one, two
        for moment in (0.03, 0.08, 0.15):
            body = {"name": "web", "migration": True, "project": there.name}
            move = threading.Thread(target=attempt, args=(daemon, f"/1.0/instances/web?project={here.name}", body))
            move.start()
            move.join(moment)
            daemon.signal(signal.SIGKILL)
            move.join()
            daemon.start()
            if there.names("instances"):
                here, there = there, here
            assert (here.names("instances"), there.names("instances")) == (["web"], [])
            key = f"{here.name}_web"
            for kind in ("containers", "containers-snapshots"):
                assert until(partial(holds_only, tree / kind, key), f"{kind} of nothing else are left")
            assert len(os.listdir(tree / f"containers/{key}/rootfs/data")) == 500
            assert len(os.listdir(tree / f"containers-snapshots/{key}/s/rootfs/data")) == 500


def holds_only(directory: Path, name: str) -> bool:
    return os.listdir(directory) == [name]


def attempt(daemon: Daemon, path: str, body: dict[str, object]) -> None:
    with contextlib.suppress(ApiError, OSError, ValueError, http.client.HTTPException):
        daemon.request("POST", path, body)


def test_two_of_one_name_side_by_side(daemon: Daemon, image: str, need: Callable[..., None]) -> None:
    need("dnsmasq", "nft")
    network = unique("n")[:12]
    config = {"ipv4.address": "10.199.55.1/24", "ipv6.address": "none"}
    daemon.request("POST", "/1.0/networks", {"name": network, "config": config})
    with project(daemon, features__images="false") as made:
        own = f"{made.name}_web"
        for where in ("default", made.name):
            daemon.command("launch", image, "web", "--network", network, "--project", where)
            daemon.command("wait", "web", "ip", "--project", where)
        states = [daemon.request("GET", f"/1.0/instances/web/state?project={p}") for p in ("default", made.name)]
        first, second = (state["network"]["eth0"]["addresses"][0]["address"] for state in states)
        assert first != second
        names = {
            lease["address"]: lease["hostname"] for lease in daemon.request("GET", f"/1.0/networks/{network}/leases")
        }
        assert (names[first], names[second]) == ("web", own)
        asked = shell(made, "web", f"nslookup {own} 10.199.55.1; nslookup web 10.199.55.1; hostname")
        assert second in asked
        assert first in asked
        assert asked.endswith("web\n")
        assert {"web", own} <= set(os.listdir(f"{daemon.dir}/run/instances"))
        groups = {Path(f"/proc/{state['pid']}/cgroup").read_text() for state in states}
        assert len(groups) == 2
        daemon.command("stop", "--force", "web", "--project", made.name)
        assert daemon.command("exec", "web", "--", "echo", "still here").stdout == "still here\n"
        assert {one["project"] for one in daemon.request("GET", "/1.0/instances?recursion=1&all-projects=true")} == {
            "default",
            made.name,
        }
        daemon.command("delete", "--force", "web")
        made.empty()
    daemon.request("DELETE", f"/1.0/networks/{network}")


def test_one_image_in_two_projects(daemon: Daemon, image: str, busybox_files: list[str]) -> None:
    fingerprint = daemon.request("GET", f"/1.0/images/aliases/{image}")["target"]
    before = os.listdir(f"{daemon.dir}/images")
    with project(daemon) as made:
        assert made.request("GET", "images") == []
        with refused("Image alias not found", 404):
            made.make(source={"type": "image", "alias": image})
        daemon.command("image", "import", *busybox_files, "--alias", "mine", "--project", made.name)
        assert made.request("GET", "images/aliases/mine")["target"] == fingerprint
        assert os.listdir(f"{daemon.dir}/images") == before
        made.make(source={"type": "image", "alias": "mine"})
        made.request("DELETE", f"images/{fingerprint}")
        with refused("Image not found", 404):
            made.request("GET", f"images/{fingerprint}")
        assert os.listdir(f"{daemon.dir}/images") == before
        kept = unique("c")
        daemon.command("init", image, kept)
        daemon.command("delete", kept)


def test_what_a_project_shares(daemon: Daemon, image: str) -> None:
    features = dict.fromkeys(("features__images", "features__profiles", "features__storage__volumes"), "false")
    volumes = "storage-pools/default/volumes/custom"
    with project(daemon, **features) as made:
        for path in ("images", "profiles", "networks", volumes, "images/aliases"):
            there = [url.partition("?")[0] for url in made.request("GET", path)]
            assert there == [url.partition("?")[0] for url in daemon.request("GET", f"/1.0/{path}")]
        made.request("POST", volumes, {"name": "shared"})
        assert "shared" in [v["name"] for v in daemon.request("GET", f"/1.0/{volumes}?recursion=1")]
        guest = made.make(devices={"d": {"type": "disk", "pool": "default", "source": "shared", "path": "/d"}})
        used = daemon.request("GET", f"/1.0/{volumes}/shared")["used_by"]
        assert used == [f"/1.0/instances/{guest}?project={made.name}"]
        assert (
            f"/1.0/instances/{guest}?project={made.name}" in daemon.request("GET", "/1.0/profiles/default")["used_by"]
        )
        with refused(f"there is instance {guest}", 400):
            daemon.request("DELETE", made.url)
        made.empty()
        daemon.request("DELETE", f"/1.0/{volumes}/shared")


def test_renaming_a_project_with_all_that_is_in_it(daemon: Daemon, image: str) -> None:
    volumes = "storage-pools/default/volumes/custom"
    with project(daemon, features__images="false") as made:
        made.request("POST", volumes, {"name": "data"})
        made.request("POST", f"{volumes}/data/snapshots", {"name": "s"})
        disk = {"type": "disk", "pool": "default", "source": "data", "path": "/data"}
        daemon.command("launch", image, "web", "--project", made.name)
        made.request("PATCH", "instances/web", {"devices": {"data": disk}})
        shell(made, "web", "echo kept > /root/file; echo kept > /data/file")
        made.request("POST", "instances/web/snapshots", {"name": "s"})
        old, new = made.name, unique("q")
        with refused("Instance 'web' of the project is running", 400):
            daemon.request("POST", made.url, {"name": new})
        assert made.names("instances") == ["web"]
        daemon.command("stop", "--force", "web", "--project", old)
        with refused("already exists", 409):
            daemon.request("POST", made.url, {"name": "default"})
        daemon.request("POST", made.url, {"name": new})
        made.name, made.url = new, f"/1.0/projects/{new}"
        with refused("Project not found", 404):
            daemon.request("GET", f"/1.0/projects/{old}")
        assert f"/1.0/instances/web?project={new}" in daemon.request("GET", made.url)["used_by"]
        pool = Path(daemon.dir) / "storage-pools/default"
        assert not [path for path in (*pool.glob("*/*"), *Path(daemon.dir, "logs").iterdir()) if old in path.name]
        index = pool / f"containers/{new}_web/backup.yaml"
        assert until(lambda: index.exists() and f"project: {new}" in index.read_text(), "it says so")
        daemon.command("start", "web", "--project", new)
        assert shell(made, "web", "cat /root/file /data/file") == "kept\nkept\n"
        made.request("PUT", "instances/web", {"restore": "s"})
        assert made.request("GET", f"{volumes}/data/snapshots") == [f"/1.0/{volumes}/data/snapshots/s?project={new}"]


def test_a_renaming_that_is_cut_off(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    names = [f"c{n}" for n in range(8)]
    with project(daemon) as made:
        for name in names:
            made.make(name)
            made.request("POST", f"instances/{name}/snapshots", {"name": "s"})
        for moment in (0.01, 0.04):
            old, new = made.name, unique("q")
            renaming = threading.Thread(target=attempt, args=(daemon, made.url, {"name": new}))
            renaming.start()
            renaming.join(moment)
            daemon.signal(signal.SIGKILL)
            renaming.join()
            daemon.start()
            (made.name,) = {one["name"] for one in daemon.request("GET", "/1.0/projects?recursion=1")} - {"default"}
            made.url = f"/1.0/projects/{made.name}"
            assert made.name in (old, new)
            assert_all_there(made, names)
        daemon.stop()
        with daemon.database() as database:  # as a daemon leaves it that died half-way
            database.execute("UPDATE projects SET new_name = 'shop' WHERE name = ?", (made.name,))
        os.rename(
            f"{daemon.dir}/storage-pools/default/containers/{made.name}_c0",
            f"{daemon.dir}/storage-pools/default/containers/shop_c0",
        )
        daemon.start()
        made.name, made.url = "shop", "/1.0/projects/shop"
        assert_all_there(made, names)


def assert_all_there(made: Project, names: list[str]) -> None:
    assert made.names("instances") == names
    for kind in ("containers", "containers-snapshots"):
        keys = os.listdir(f"{made.daemon.dir}/storage-pools/default/{kind}")
        assert sorted(keys) == [f"{made.name}_{name}" for name in names]


def test_the_sum_of_disks(daemon: Daemon) -> None:
    volumes = "storage-pools/{}/volumes/custom"
    for name in ("btrfs", "other"):
        body = {"name": name, "driver": "btrfs", "config": {"size": "256MiB"}}
        daemon.request("POST", "/1.0/storage-pools", body)
    root = {"type": "disk", "path": "/", "pool": "btrfs"}
    sized = {"root": {**root, "size": "32MiB"}}
    with project(daemon, pool="btrfs", limits__disk="64MiB") as made:
        with refused("has no 'size' config set on the root device"):
            made.make()
        made.make(devices=sized)
        with refused('Custom volume "v" in project'):
            made.request("POST", volumes.format("btrfs"), {"name": "v"})
        made.request("POST", volumes.format("btrfs"), {"name": "v", "config": {"size": "32MiB"}})
        assert made.usage()["disk"] == (64 * MIB, 64 * MIB)
        with refused("Reached maximum aggregate value"):
            made.make(devices=sized)
        with refused("Reached maximum aggregate value"):
            made.request("PATCH", f"{volumes.format('btrfs')}/v", {"config": {"size": "33MiB"}})
        with refused("Reached maximum aggregate value"):
            made.request("POST", volumes.format("other"), {"name": "w", "source": {"name": "v", "pool": "btrfs"}})
        made.request("POST", f"{volumes.format('btrfs')}/v", {"name": "v", "pool": "other"})
        assert made.names(volumes.format("other")) == ["v"]
    for name in ("btrfs", "other"):
        daemon.request("DELETE", f"/1.0/storage-pools/{name}")
