"""Instances over the API of a real daemon: what is asked for is what the kernel then has."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique


@pytest.fixture(autouse=True)
def pool(daemon: Daemon) -> None:
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})


@pytest.fixture
def make(daemon: Daemon, busybox: str) -> Iterator[Callable[..., str]]:
    """Create instances of busybox; they are deleted after the test."""
    made: list[str] = []

    def create(*, start: bool = False, **body: Any) -> str:
        name = str(body.pop("name", None) or unique("c"))
        source = {"type": "image", "alias": busybox}
        daemon.request("POST", "/1.0/instances", {"name": name, "source": source, "start": start, **body})
        made.append(name)
        return name

    yield create
    for name in made:
        if name in daemon.instances():
            if daemon.instances()[name] != "Stopped":
                state(daemon, name, "stop", force=True)
            daemon.request("PATCH", f"/1.0/instances/{name}", {"config": {"security.protection.delete": ""}})
            daemon.request("DELETE", f"/1.0/instances/{name}")


def state(daemon: Daemon, name: str, action: str, **options: Any) -> None:
    daemon.request("PUT", f"/1.0/instances/{name}/state", {"action": action, **options})


def get(daemon: Daemon, name: str) -> Any:
    return daemon.request("GET", f"/1.0/instances/{name}")


def pid(daemon: Daemon, name: str) -> int:
    return int(daemon.request("GET", f"/1.0/instances/{name}/state")["pid"])


def refused(daemon: Daemon, method: str, path: str, body: Any, status: int, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        daemon.request(method, path, body)
    assert (caught.value.status, text in caught.value.text) == (status, True), caught.value.text
    assert "\n" not in caught.value.text


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 20) -> None:
    """Wait for what another process does and no event of this one tells."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


def cgroup_value(process: int, controller: str, v1: str, v2: str) -> str:
    """Return the content of a cgroup file of a process, on either layout."""
    with open(f"/proc/{process}/cgroup") as file:
        groups = {line.split(":")[1]: line.strip().split(":", 2)[2] for line in file}
    for controllers, path in groups.items():
        if controller in controllers.split(","):
            return _up(f"/sys/fs/cgroup/{controllers}", path, v1)
    return _up("/sys/fs/cgroup", groups[""], v2)


def _up(mount: str, path: str, name: str) -> str:
    # PID 1 may have moved itself below the group that has the limit.
    found = ""
    while path != "/":
        with open(f"{mount}{path}/{name}") as file:
            value = file.read().strip()
        if value not in ("max", "9223372036854771712", ""):
            return value
        found, path = value, os.path.dirname(path)
    return found


def test_life(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make()
    assert get(daemon, name)["status"] == "Stopped"
    state(daemon, name, "start")
    assert get(daemon, name)["status"] == "Running"
    first = pid(daemon, name)
    assert os.readlink(f"/proc/{first}/exe").endswith("busybox")
    assert get(daemon, name)["config"]["volatile.last_state.power"] == "RUNNING"
    state(daemon, name, "freeze")
    assert get(daemon, name)["status"] == "Frozen"
    assert get(daemon, name)["status_code"] == 110
    state(daemon, name, "unfreeze")
    state(daemon, name, "restart", force=True)
    assert pid(daemon, name) != first
    assert not os.path.exists(f"/proc/{first}")
    state(daemon, name, "stop", timeout=30)
    stopped = get(daemon, name)
    assert stopped["status"] == "Stopped"
    assert stopped["config"]["volatile.last_state.power"] == "STOPPED"
    daemon.request("DELETE", f"/1.0/instances/{name}")
    assert not os.path.exists(f"{daemon.dir}/storage-pools/default/containers/{name}")
    assert not os.path.exists(f"{daemon.dir}/logs/{name}")


def test_wrong_states_are_said_in_lxds_words(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make()
    path = f"/1.0/instances/{name}/state"
    refused(daemon, "PUT", path, {"action": "stop", "force": True}, 400, "already stopped")
    refused(daemon, "PUT", path, {"action": "freeze"}, 400, "is not running")
    state(daemon, name, "start")
    refused(daemon, "PUT", path, {"action": "start"}, 400, "The instance is already running")
    refused(daemon, "PUT", path, {"action": "dance"}, 400, "dance")
    refused(daemon, "DELETE", f"/1.0/instances/{name}", None, 400, "Instance is running")
    refused(daemon, "POST", f"/1.0/instances/{name}", {"name": "other"}, 400, "running instance not allowed")
    state(daemon, name, "freeze")
    refused(daemon, "PUT", path, {"action": "freeze"}, 400, "already frozen")
    refused(daemon, "PUT", "/1.0/instances/nope/state", {"action": "start"}, 404, "Instance not found")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"name": "-bad"}, 400, "Invalid instance name"),
        ({"name": "ok", "source": {"type": "image", "alias": "no-such-image"}}, 404, "not found"),
        ({"name": "ok", "source": {"type": "image", "fingerprint": "abcdef012345"}}, 404, "not found"),
        ({"name": "ok", "source": {"type": "image"}}, 400, "Must specify"),
        ({"name": "ok", "source": {"type": "magic"}}, 400, "magic"),
        ({"name": "ok", "source": {}}, 400, "source type"),
        ({"name": "ok", "config": {"limits.memmory": "1GiB"}}, 400, "did you mean limits.memory?"),
        ({"name": "ok", "config": {"limits.memory": "plenty"}}, 400, "limits.memory"),
        ({"name": "ok", "config": {"limits.memory": 5}}, 400, "config.limits.memory"),
        ({"name": "ok", "profiles": ["nope"]}, 404, "nope"),
        ({"name": "ok", "profiles": []}, 400, "No root device"),
        ({"name": "ok", "devices": {"root": {"type": "disk", "path": "/", "pool": "nope"}}}, 404, "pool"),
        ({"name": "ok", "type": "virtual-machine"}, 400, "virtual-machine"),
        ({"name": "ok", "architecture": "pdp11"}, 400, "pdp11"),
        ({"name": "ok", "instance_type": "enormous"}, 400, "enormous"),
    ],
)
def test_bad_requests_leave_nothing(daemon: Daemon, busybox: str, body: dict[str, Any], status: int, text: str) -> None:
    before = daemon.instances()
    refused(daemon, "POST", "/1.0/instances", {"source": {"type": "image", "alias": busybox}, **body}, status, text)
    assert daemon.instances() == before
    assert not os.path.exists(f"{daemon.dir}/storage-pools/default/containers/ok")


def test_a_taken_name_is_refused(daemon: Daemon, make: Callable[..., str], busybox: str) -> None:
    name = make()
    body = {"name": name, "source": {"type": "image", "alias": busybox}}
    refused(daemon, "POST", "/1.0/instances", body, 409, "already exists")
    assert get(daemon, name)["status"] == "Stopped"


def test_a_name_is_found_for_the_nameless(daemon: Daemon, busybox: str) -> None:
    before = set(daemon.instances())
    daemon.request(
        "POST", "/1.0/instances", {"source": {"type": "image", "alias": busybox}, "instance_type": "c1-m0.5"}
    )
    (name,) = set(daemon.instances()) - before
    config = get(daemon, name)["config"]
    assert (config["limits.cpu"], config["limits.memory"]) == ("1", "512MiB")
    daemon.request("DELETE", f"/1.0/instances/{name}")


def test_an_empty_instance_has_no_init(daemon: Daemon) -> None:
    name = unique("c")
    daemon.request("POST", "/1.0/instances", {"name": name, "source": {"type": "none"}})
    with pytest.raises(ApiError, match="there is no init to start"):
        state(daemon, name, "start")
    assert get(daemon, name)["status"] == "Stopped"
    assert get(daemon, name)["config"].get("volatile.last_state.power") != "RUNNING"
    daemon.request("DELETE", f"/1.0/instances/{name}")


def test_a_whole_get_answer_can_be_put_back(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(config={"user.a": "1"})
    before = get(daemon, name)
    daemon.request("PUT", f"/1.0/instances/{name}", before)
    assert get(daemon, name) == before
    changed = {**before, "config": {**before["config"], "user.a": "", "user.b": "2"}, "description": "mine"}
    daemon.request("PUT", f"/1.0/instances/{name}", changed)
    after = get(daemon, name)
    assert after["description"] == "mine"
    assert {k: v for k, v in after["config"].items() if k.startswith("user.")} == {"user.b": "2"}
    config = {k: v for k, v in before["config"].items() if not k.startswith("volatile.idmap")}
    refused(daemon, "PUT", f"/1.0/instances/{name}", {**before, "config": config}, 400, "idmap keys can't be deleted")


def test_a_late_put_does_not_turn_back_what_runs(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make()
    before = get(daemon, name)
    state(daemon, name, "start")
    running = get(daemon, name)["config"]
    daemon.request("PUT", f"/1.0/instances/{name}", before)
    assert get(daemon, name)["config"] == running


def test_patch_merges(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(config={"user.a": "1", "user.b": "1"})
    daemon.request("PATCH", f"/1.0/instances/{name}", {"config": {"user.b": "", "user.c": "3"}})
    config = get(daemon, name)["config"]
    assert {k: v for k, v in config.items() if k.startswith("user.")} == {"user.a": "1", "user.c": "3"}
    refused(daemon, "PATCH", f"/1.0/instances/{name}", {"config": {"limits.cpu": "x"}}, 400, "limits.cpu")


def test_limits_act_at_start_and_live(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(start=True, config={"limits.memory": "64MiB", "limits.processes": "50"})
    process = pid(daemon, name)
    memory = ("memory", "memory.limit_in_bytes", "memory.max")
    assert cgroup_value(process, *memory) == str(64 << 20)
    assert cgroup_value(process, "pids", "pids.max", "pids.max") == "50"
    daemon.request("PATCH", f"/1.0/instances/{name}", {"config": {"limits.memory": "96MiB", "limits.processes": ""}})
    assert cgroup_value(process, *memory) == str(96 << 20)
    assert cgroup_value(process, "pids", "pids.max", "pids.max") != "50"
    assert pid(daemon, name) == process
    before = get(daemon, name)
    refused(
        daemon,
        "PUT",
        f"/1.0/instances/{name}",
        {**before, "config": {**before["config"], "limits.cpu": "4000-4001"}},
        400,
        "limits",
    )
    assert get(daemon, name) == before


def test_profiles_reach_running_instances(daemon: Daemon, make: Callable[..., str]) -> None:
    profile = unique("p")
    daemon.request("POST", "/1.0/profiles", {"name": profile, "config": {"limits.memory": "64MiB"}})
    name = make(start=True, profiles=["default", profile])
    process = pid(daemon, name)
    daemon.request("PATCH", f"/1.0/profiles/{profile}", {"config": {"limits.memory": "80MiB"}})
    assert cgroup_value(process, "memory", "memory.limit_in_bytes", "memory.max") == str(80 << 20)
    assert get(daemon, name)["expanded_config"]["limits.memory"] == "80MiB"
    assert "limits.memory" not in get(daemon, name)["config"]
    assert daemon.request("GET", f"/1.0/profiles/{profile}")["used_by"] == [f"/1.0/instances/{name}"]
    refused(daemon, "DELETE", f"/1.0/profiles/{profile}", None, 400, "in use")
    refused(daemon, "PUT", "/1.0/profiles/default", {"devices": {}}, 400, "No root device")
    daemon.request("PATCH", f"/1.0/instances/{name}", {"profiles": ["default"]})
    daemon.request("DELETE", f"/1.0/profiles/{profile}")


def test_id_maps(daemon: Daemon, make: Callable[..., str]) -> None:
    def uid_map(name: str) -> list[int]:
        with open(f"/proc/{pid(daemon, name)}/uid_map") as file:
            return [int(field) for field in file.read().split()]

    shared = uid_map(make(start=True))
    assert shared[1] >= 65536
    isolated = [uid_map(make(start=True, config={"security.idmap.isolated": "true"})) for _ in range(2)]
    assert isolated[0][2] == isolated[1][2] == 65536
    assert abs(isolated[0][1] - isolated[1][1]) >= 65536
    assert uid_map(make(start=True, config={"security.privileged": "true"})) == [0, 0, 4294967295]


def test_confinement_of_pid_1(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(
        start=True,
        config={
            "limits.kernel.nofile": "300:400",
            "environment.GREETING": "hello",
            "linux.sysctl.net.ipv4.ip_forward": "1",
        },
    )
    assert daemon.command("exec", name, "cat", "/proc/sys/net/ipv4/ip_forward").stdout == "1\n"
    process = pid(daemon, name)
    with open(f"/proc/{process}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert status["Seccomp"] == "2"
    with open(f"/proc/{process}/limits") as file:
        assert any(line.split()[:5] == ["Max", "open", "files", "300", "400"] for line in file)
    with open(f"/proc/{process}/environ") as file:
        assert {"GREETING=hello", "container=lxc"} <= set(file.read().split("\0"))


def test_rename(daemon: Daemon, make: Callable[..., str], busybox: str) -> None:
    name, new = make(), unique("n")
    other = make()
    refused(daemon, "POST", f"/1.0/instances/{name}", {"name": other}, 409, "already exists")
    refused(daemon, "POST", f"/1.0/instances/{name}", {"name": "a b"}, 400, "Invalid instance name")
    daemon.request("POST", f"/1.0/instances/{name}", {"name": new})
    assert name not in daemon.instances()
    state(daemon, new, "start")
    assert daemon.command("exec", new, "hostname").stdout.strip() == new
    state(daemon, new, "stop", force=True)
    daemon.request("DELETE", f"/1.0/instances/{new}")


def test_protection(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(config={"security.protection.delete": "true"})
    refused(daemon, "DELETE", f"/1.0/instances/{name}", None, 400, "protected")


def test_ephemeral_ones_go_when_they_stop_and_stay_when_they_restart(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(start=True, ephemeral=True)
    state(daemon, name, "restart", force=True)
    assert daemon.instances()[name] == "Running"
    state(daemon, name, "stop", force=True)
    assert name not in daemon.instances()
    assert not os.path.exists(f"{daemon.dir}/storage-pools/default/containers/{name}")


def test_halt_reboot_and_crash_from_inside(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(start=True)
    first = pid(daemon, name)
    daemon.request("PATCH", f"/1.0/instances/{name}", {"config": {"limits.kernel.nofile": "321"}})
    daemon.command("exec", name, "--", "reboot", "-f", check=False)
    wait_for(lambda: pid(daemon, name) not in (0, first), "reboot")
    with open(f"/proc/{pid(daemon, name)}/limits") as file:
        assert " 321 " in file.read()
    daemon.command("exec", name, "--", "poweroff", "-f", check=False)
    wait_for(lambda: daemon.instances()[name] == "Stopped", "halt")
    state(daemon, name, "start")
    os.kill(pid(daemon, name), signal.SIGKILL)
    wait_for(lambda: get(daemon, name)["config"]["volatile.last_state.power"] == "STOPPED", "crash")
    assert daemon.instances()[name] == "Stopped"


def test_lists_and_filters(daemon: Daemon, make: Callable[..., str]) -> None:
    tag = unique("t")
    names = sorted([make(config={"user.tag": tag}), make(config={"user.tag": tag}, start=True)])
    query = f"filter=config.user.tag+eq+{tag}"
    assert daemon.request("GET", f"/1.0/instances?{query}") == [f"/1.0/instances/{name}" for name in names]
    found = daemon.request("GET", f"/1.0/instances?recursion=2&{query}")
    assert [i["name"] for i in found] == names
    for instance in found:
        running = instance["status"] == "Running"
        assert (instance["state"]["network"] is not None) == running
        assert (instance["state"]["pid"] > 0) == running
    (only,) = daemon.request("GET", f"/1.0/instances?recursion=1&{query}+and+status+eq+running")
    lo = daemon.request("GET", f"/1.0/instances/{only['name']}/state")["network"]["lo"]
    assert {"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"} in lo["addresses"]
    assert lo["type"] == "loopback"
    assert daemon.request("GET", "/1.0/instances?instance-type=virtual-machine") == []
    assert f"/1.0/containers/{names[0]}" in daemon.request("GET", "/1.0/containers")
    refused(daemon, "GET", "/1.0/instances?filter=name", None, 400, "filter")


def test_all_at_once(daemon: Daemon, make: Callable[..., str]) -> None:
    names = [make() for _ in range(3)]
    daemon.request("PUT", "/1.0/instances", {"state": {"action": "start"}})
    assert {daemon.instances()[name] for name in names} == {"Running"}
    daemon.request("PUT", "/1.0/instances", {"state": {"action": "stop", "force": True}})
    assert {daemon.instances()[name] for name in names} == {"Stopped"}


def test_a_forced_stop_helps_a_clean_one_that_hangs(daemon: Daemon, make: Callable[..., str]) -> None:
    name = make(start=True)
    # A frozen init cannot stop: freeze only PID 1 by a signal that it cannot catch.
    os.kill(pid(daemon, name), signal.SIGSTOP)
    answer = daemon._exchange("PUT", f"/1.0/instances/{name}/state", {"action": "stop", "timeout": -1}, 10)
    refused(daemon, "PUT", f"/1.0/instances/{name}/state", {"action": "start"}, 400, 'busy running a "stop" operation')
    state(daemon, name, "stop", force=True)
    done = daemon.request("GET", f"{answer['operation']}/wait?timeout=10")
    assert (done["status_code"], done["err"]) == (200, "")
    assert daemon.instances()[name] == "Stopped"


def test_projects_keep_names_apart(daemon: Daemon, busybox: str) -> None:
    project, name = unique("p"), unique("c")
    config = {"features.images": "false", "features.profiles": "false"}
    daemon.request("POST", "/1.0/projects", {"name": project, "config": config})
    body = {"name": name, "source": {"type": "image", "alias": busybox}, "start": True}
    daemon.request("POST", "/1.0/instances", body)
    daemon.request("POST", f"/1.0/instances?project={project}", body)
    assert daemon.request("GET", f"/1.0/instances?project={project}") == [f"/1.0/instances/{name}?project={project}"]
    assert os.path.isdir(f"{daemon.dir}/storage-pools/default/containers/{project}_{name}/rootfs")
    refused(daemon, "DELETE", f"/1.0/projects/{project}", None, 400, "Only empty projects")
    for suffix in ("", f"?project={project}"):
        path = f"/1.0/instances/{name}"
        daemon.request("PUT", f"{path}/state{suffix}", {"action": "stop", "force": True})
        daemon.request("DELETE", f"{path}{suffix}")
    daemon.request("DELETE", f"/1.0/projects/{project}")


def test_containers_outlive_the_daemon(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    source = {"type": "image", "alias": daemon.import_image("busybox", busybox_files)}
    names = {}
    for what in ("stays", "ends"):
        names[what] = unique("c")
        daemon.request("POST", "/1.0/instances", {"name": names[what], "source": source, "start": True})
    pids = {what: pid(daemon, name) for what, name in names.items()}
    daemon.signal(signal.SIGKILL)
    os.kill(pids["ends"], signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{pids['ends']}"), "end of the container")
    daemon.start()
    assert pid(daemon, names["stays"]) == pids["stays"]
    wait_for(lambda: get(daemon, names["ends"])["config"]["volatile.last_state.power"] == "STOPPED", "exit found")
    assert daemon.instances()[names["ends"]] == "Stopped"
    assert daemon.command("exec", names["stays"], "echo", "hello").stdout == "hello\n"
    state(daemon, names["stays"], "stop", force=True)
    state(daemon, names["stays"], "start")


def test_what_a_dead_daemon_left_half_done_is_settled(
    make_daemon: Callable[..., Daemon], busybox_files: list[str]
) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    source = {"type": "image", "alias": daemon.import_image("busybox", busybox_files)}
    for name in ("half-made", "half-gone", "renamed", "moved", "whole"):
        daemon.request("POST", "/1.0/instances", {"name": name, "source": source})
    assert daemon.stop() == 0
    containers = f"{daemon.dir}/storage-pools/default/containers"
    with contextlib.closing(sqlite3.connect(f"{daemon.dir}/database/pylxc.db")) as database:
        database.execute("UPDATE instances SET state = 'creating' WHERE name = 'half-made'")
        database.execute("UPDATE instances SET state = 'deleting' WHERE name = 'half-gone'")
        database.execute("UPDATE instances SET new_name = name || '-new' WHERE name IN ('renamed', 'moved')")
        database.execute("UPDATE storage_volumes SET name = 'moved-new' WHERE name = 'moved'")
        database.commit()
    os.rename(f"{containers}/moved", f"{containers}/moved-new")
    daemon.start()
    left = ["moved-new", "renamed-new", "whole"]
    assert sorted(daemon.instances()) == sorted(os.listdir(containers)) == left
    for name in left:
        state(daemon, name, "start")
    assert set(daemon.instances().values()) == {"Running"}


def test_what_ran_runs_again_after_the_host_went_down(
    make_daemon: Callable[..., Daemon], busybox_files: list[str]
) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    source = {"type": "image", "alias": daemon.import_image("busybox", busybox_files)}
    wanted = {"ran": {}, "never": {"boot.autostart": "false"}, "always": {"boot.autostart": "true"}, "idle": {}}
    patience = {"boot.host_shutdown_timeout": "1"}
    for name, config in wanted.items():
        start = name in ("ran", "never")
        daemon.request(
            "POST", "/1.0/instances", {"name": name, "source": source, "config": {**config, **patience}, "start": start}
        )
    assert daemon.signal(signal.SIGPWR, timeout=60) == 0
    assert os.listdir(f"{daemon.dir}/run/instances") == []
    daemon.start()
    expected = {"ran": "Running", "never": "Stopped", "always": "Running", "idle": "Stopped"}
    wait_for(lambda: daemon.instances() == expected, f"autostart, {daemon.instances()}")
