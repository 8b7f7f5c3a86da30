"""Devices that come and go while a guest runs: what the API is told is what the guest has, or nothing has changed."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.wait import until

Guest = str


@pytest.fixture(scope="module", autouse=True)
def pool(module_daemon: Daemon) -> None:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})


@pytest.fixture
def guest(daemon: Daemon, busybox: str) -> Iterator[Guest]:
    """Return the name of a running guest."""
    yield launch(daemon, busybox)
    daemon.delete_all()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a directory of the host, owned by its root, with a file `here` in it."""
    made = tmp_path / "source"
    made.mkdir()
    (made / "here").write_text("from the host\n")
    return made


def launch(daemon: Daemon, busybox: str, **body: Any) -> Guest:
    name = unique("c")
    body |= {"name": name, "source": {"type": "image", "alias": busybox}, "start": True}
    daemon.request("POST", "/1.0/instances", body)
    until(lambda: "/run" in mounts(daemon, name), "what its init mounts")  # the last change that is none of ours
    return name


def pid(daemon: Daemon, guest: Guest) -> int:
    return int(daemon.request("GET", f"/1.0/instances/{guest}/state")["pid"])


def get(daemon: Daemon, guest: Guest) -> Any:
    return daemon.request("GET", f"/1.0/instances/{guest}")


def mounts(daemon: Daemon, guest: Guest) -> dict[str, str]:
    """Return the options of what is mounted in a guest by mount point."""
    lines = Path(f"/proc/{pid(daemon, guest)}/mountinfo").read_text().splitlines()
    return {line.split()[4]: line.split()[5] for line in lines}


def links(daemon: Daemon, guest: Guest) -> set[str]:
    """Return the names of a guest's interfaces."""
    return set(daemon.request("GET", f"/1.0/instances/{guest}/state")["network"]) - {"lo"}


def inside(daemon: Daemon, guest: Guest, script: str, *, check: bool = True) -> str:
    done = daemon.command("exec", guest, "--", "sh", "-c", script, check=check)
    return done.stdout + done.stderr


def disk(source: Path | str, path: str, **more: str) -> dict[str, str]:
    return {"type": "disk", "source": str(source), "path": path, **more}


def patch(daemon: Daemon, guest: Guest, **devices: dict[str, str]) -> None:
    daemon.request("PATCH", f"/1.0/instances/{guest}", {"devices": devices})


def put(daemon: Daemon, guest: Guest, devices: dict[str, dict[str, str]]) -> None:
    body = get(daemon, guest)
    daemon.request("PUT", f"/1.0/instances/{guest}", {**body, "devices": devices})


def refused(status: int, text: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
    with pytest.raises(ApiError) as caught:
        call(*args, **options)
    assert (caught.value.status, text in caught.value.text) == (status, True), caught.value.text
    assert "\n" not in caught.value.text


def test_disk_comes_and_goes(daemon: Daemon, guest: Guest, source: Path) -> None:
    daemon.command("config", "device", "add", guest, "data", "disk", f"source={source}", "path=/srv/data", "shift=true")
    assert inside(daemon, guest, "cat /srv/data/here; stat -c %u:%g /srv/data/here") == "from the host\n0:0\n"
    inside(daemon, guest, "echo from the guest > /srv/data/there")
    assert (source / "there").stat().st_uid == 0
    # Busy, and gone all the same.
    inside(daemon, guest, "cd /srv/data && (sleep 1000 >/dev/null 2>&1 &)")
    daemon.command("config", "device", "remove", guest, "data")
    assert "/srv/data" not in mounts(daemon, guest)
    assert inside(daemon, guest, "ls /srv/data") == ""
    assert str(source) not in Path("/proc/self/mountinfo").read_text()


def test_guest_keeps_its_hands_from_a_readonly_disk(daemon: Daemon, guest: Guest, source: Path) -> None:
    patch(daemon, guest, data=disk(source, "/data", readonly="true", shift="true"), file=disk(source / "here", "/f"))
    assert "ro" in mounts(daemon, guest)["/data"].split(",")
    said = inside(daemon, guest, "mount -o remount,rw,bind /data; echo x > /data/x; cat /f", check=False)
    assert "from the host" in said
    assert not (source / "x").exists()
    patch(daemon, guest, data=disk(source, "/data", shift="true"))
    inside(daemon, guest, "echo x > /data/x")
    assert (source / "x").exists()


def test_hostile_targets_stay_inside(daemon: Daemon, guest: Guest, source: Path) -> None:
    inside(daemon, guest, "mkdir /a; ln -s ../../../../../../etc /a/up; ln -s /proc/1/root /a/magic")
    patch(daemon, guest, up=disk(source, "/a/up/made"))
    assert inside(daemon, guest, "cat /etc/made/here") == "from the host\n"
    assert not os.path.exists("/etc/made")
    with suppress(ApiError):
        patch(daemon, guest, magic=disk(source, "/a/magic/tmp/made"))
    assert not os.path.exists("/tmp/made")
    put(daemon, guest, {})
    assert "/etc/made" not in mounts(daemon, guest)


def test_survives_the_daemon_and_a_restart(daemon: Daemon, guest: Guest, source: Path) -> None:
    patch(daemon, guest, data=disk(source, "/data"), eth5={"type": "nic", "nictype": "p2p", "name": "eth5"})
    (host_end,) = [link for link in daemon.netns.links() if link.startswith("veth")] if daemon.netns else [""]
    daemon.stop()
    daemon.start()
    assert get(daemon, guest)["config"]["volatile.eth5.host_name"] == host_end
    assert "/data" in mounts(daemon, guest)
    put(daemon, guest, {})
    assert "/data" not in mounts(daemon, guest)
    assert links(daemon, guest) == set()
    assert daemon.netns is not None
    assert host_end not in daemon.netns.links()
    assert not [key for key in get(daemon, guest)["config"] if key.startswith("volatile.eth5.")]
    patch(daemon, guest, data=disk(source, "/data"))
    daemon.command("restart", "--force", guest)
    assert "/data" in mounts(daemon, guest)


def test_nics_come_change_and_go(daemon: Daemon, guest: Guest) -> None:
    assert daemon.netns is not None
    daemon.request("POST", "/1.0/networks", {"name": "hp0", "config": {"ipv4.address": "10.88.1.1/24"}})
    up = ["ip", "-n", daemon.netns.name, "link"]
    subprocess.run([*up, "add", "lower0", "type", "veth", "peer", "name", "lower1"], check=True)
    try:
        patch(daemon, guest, a={"type": "nic", "network": "hp0"}, b={"type": "nic", "nictype": "p2p", "mtu": "1400"})
        patch(daemon, guest, c={"type": "nic", "nictype": "macvlan", "parent": "lower0", "name": "mac0"})
        assert links(daemon, guest) == {"eth0", "eth1", "mac0"}
        state = daemon.request("GET", f"/1.0/instances/{guest}/state")["network"]
        assert (state["eth0"]["state"], state["eth1"]["mtu"]) == ("up", 1400)
        hwaddr = state["eth0"]["hwaddr"]
        leased = "udhcpc -i eth0 -n -q -t 5 -T 1 2>&1 | grep -o 'lease of 10.88.1.[0-9]*'"
        assert "lease of 10.88.1." in inside(daemon, guest, leased)
        patch(daemon, guest, a={"type": "nic", "network": "hp0", "name": "lan0"})
        state = daemon.request("GET", f"/1.0/instances/{guest}/state")["network"]
        assert links(daemon, guest) == {"lan0", "eth1", "mac0"}
        assert state["lan0"]["hwaddr"] == hwaddr
        inside(daemon, guest, "ip link set mac0 down; ip link set mac0 name renamed")
        patch(daemon, guest, c={"type": "none"}, b={"type": "none"})
        assert links(daemon, guest) == {"lan0"}
        put(daemon, guest, {})
        assert links(daemon, guest) == set()
        assert not [link for link in daemon.netns.links() if link.startswith("veth")]
    finally:
        daemon.delete_all()
        subprocess.run([*up, "delete", "lower0"], check=True)
        daemon.request("DELETE", "/1.0/networks/hp0")


def test_what_cannot_be_had_changes_nothing(daemon: Daemon, guest: Guest, source: Path) -> None:
    patch(daemon, guest, keep=disk(source, "/keep"), eth0={"type": "nic", "nictype": "p2p"})
    before = get(daemon, guest)
    have = mounts(daemon, guest), links(daemon, guest)
    missing = disk("/nonexistent", "/m")
    refused(400, "'/nonexistent' of disk device 'm' does not exist", patch, daemon, guest, m=missing)
    no_parent = {"type": "nic", "nictype": "bridged", "parent": "nope0"}
    refused(400, "'nope0' does not exist", patch, daemon, guest, n=no_parent)
    # The kernel refuses halfway through: what was taken is given back.
    no_bridge = {"type": "nic", "nictype": "bridged", "parent": "lo", "name": "eth9"}
    devices = {"aaa": disk(source, "/aaa"), "keep": disk(source / "here", "/elsewhere"), "zzz": no_bridge}
    refused(400, "'lo' is no bridge", put, daemon, guest, devices)
    same = {"type": "nic", "nictype": "p2p", "name": "eth0"}
    refused(400, "Two network devices are named 'eth0'", patch, daemon, guest, twice=same)
    assert (mounts(daemon, guest), links(daemon, guest)) == have
    after = get(daemon, guest)
    assert after["devices"] == before["devices"]
    assert {k: v for k, v in after["config"].items() if not k.endswith("host_name")} == {
        k: v for k, v in before["config"].items() if not k.endswith("host_name")
    }
    put(daemon, guest, {})
    assert not [link for link in daemon.netns.links() if link.startswith("veth")] if daemon.netns else True


def test_profile_acts_on_all_or_none(daemon: Daemon, busybox: str, source: Path) -> None:
    profile = unique("p")
    daemon.request("POST", "/1.0/profiles", {"name": profile})
    path = f"/1.0/profiles/{profile}"
    own = {"eth7": {"type": "nic", "nictype": "p2p", "name": "eth7"}}
    guests = [launch(daemon, busybox, profiles=["default", profile]) for _ in range(2)]
    guests.append(launch(daemon, busybox, profiles=["default", profile], devices=own))
    try:
        daemon.request("PATCH", path, {"devices": {"data": disk(source, "/data")}})
        assert all("/data" in mounts(daemon, guest) for guest in guests)
        clash = {"data": disk(source, "/other"), "lan": {"type": "nic", "nictype": "p2p", "name": "eth7"}}
        refused(400, f"Instance {guests[2]!r}: Two network", daemon.request, "PUT", path, {"devices": clash})
        assert daemon.request("GET", path)["devices"] == {"data": disk(source, "/data")}
        for guest in guests:
            assert "/data" in mounts(daemon, guest)
            assert "/other" not in mounts(daemon, guest)
        assert [links(daemon, guest) for guest in guests] == [set(), set(), {"eth7"}]
        daemon.request("PUT", path, {"devices": {}})
        assert not any("/data" in mounts(daemon, guest) for guest in guests)
    finally:
        daemon.delete_all()
        daemon.request("DELETE", path)


def test_daemon_killed_at_random_moments(daemon: Daemon, guest: Guest, source: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    moments = random.Random(seed)
    node = {"type": "unix-char", "source": "/dev/kmsg"}
    points = ("/one", "/two", "/dev/a", "/dev/b")
    variants: list[dict[str, dict[str, str]]] = [
        {
            "d": disk(source, "/one"),
            "n": {"type": "nic", "nictype": "p2p", "name": "net0"},
            "u": {**node, "path": "/dev/a"},
        },
        {"d": disk(source, "/two"), "n": {"type": "nic", "nictype": "p2p", "name": "net1", "limits.max": "9Mbit"}},
        {"u": {**node, "path": "/dev/b"}, "t": disk("tmpfs-overlay:", "/two")},
        {},
    ]
    for _ in range(5):

        def change() -> None:
            with suppress(Exception):
                while True:
                    put(daemon, guest, moments.choice(variants))

        worker = threading.Thread(target=change)
        worker.start()
        threading.Event().wait(moments.uniform(0.05, 0.4))  # the moment of the crash
        daemon.signal(9)
        worker.join()
        daemon.start()
        wanted = get(daemon, guest)["expanded_devices"]
        have = {point for point in mounts(daemon, guest) if point in points}
        assert have == {device["path"] for device in wanted.values() if device.get("source")}
        assert links(daemon, guest) == {device["name"] for device in wanted.values() if device["type"] == "nic"}
        assert daemon.netns is not None
        host_ends = {link for link in daemon.netns.links() if link.startswith("veth")}
        limited = [device for device in wanted.values() if "limits.max" in device]
        assert len([link for link in daemon.netns.links() if link.startswith("ifb")]) == len(limited)
        assert host_ends == {v for k, v in get(daemon, guest)["config"].items() if k.endswith(".host_name")}
    until(lambda: daemon.instances()[guest] == "Running", "the guest still runs")
