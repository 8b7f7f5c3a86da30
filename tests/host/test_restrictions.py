"""Restricted projects: for each key what it forbids and allows, whatever the way by which it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.projects import Project, project, refused


@pytest.fixture(scope="module", autouse=True)
def pool(module_daemon: Daemon) -> None:
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))


@pytest.fixture
def restricted(daemon: Daemon) -> Iterator[Project]:
    with project(daemon, restricted="true") as made:
        yield made


def keys(**config: str) -> dict[str, Any]:
    return {"config": {key.replace("__", "."): value for key, value in config.items()}}


def device(**config: str) -> dict[str, Any]:
    return {"devices": {"d": {key.replace("__", "."): value for key, value in config.items()}}}


RULES = [
    ("containers.nesting", "", "allow", keys(security__nesting="true"), "Container nesting is forbidden"),
    ("containers.privilege", "", "allow", keys(security__privileged="true"), "Privileged containers are forbidden"),
    ("containers.lowlevel", "", "allow", keys(raw__seccomp="2\ndenylist\n[all]\nreboot errno 1"), '"raw.seccomp"'),
    ("containers.lowlevel", "", "allow", keys(linux__kernel_modules="loop"), '"linux.kernel_modules"'),
    ("containers.lowlevel", "", "allow", keys(security__idmap__base="2000000"), '"security.idmap.base"'),
    ("idmap.uid", "1-5", "1-5,1000-1010", keys(raw__idmap="uid 1000-1001 5-6"), '"raw.idmap" element 0'),
    ("idmap.gid", "", "20", keys(raw__idmap="gid 20 20"), '"raw.idmap" element 0'),
    ("devices.disk", "", "allow", device(type="disk", source="/usr", path="/u"), "not backed by a pool is forbidden"),
    ("devices.nic", "", "allow", device(type="nic", nictype="p2p"), "Only managed network devices are allowed"),
    ("devices.nic", "block", "allow", device(type="nic", nictype="p2p"), "Network devices are forbidden"),
    (
        "devices.proxy",
        "",
        "allow",
        device(type="proxy", listen="tcp:127.0.0.1:7", connect="tcp:127.0.0.1:7"),
        "Proxy devices are forbidden",
    ),
    ("devices.unix-char", "", "allow", device(type="unix-char", path="/dev/null"), "Unix character devices are"),
    ("devices.unix-block", "", "allow", device(type="unix-block", path="/dev/loop0"), "Unix block devices are"),
]


@pytest.mark.parametrize(("key", "blocks", "allows", "asks", "complaint"), RULES, ids=lambda each: str(each)[:30])
def test_what_a_key_blocks_and_allows(
    restricted: Project, key: str, blocks: str, allows: str, asks: dict[str, Any], complaint: str
) -> None:
    restricted.configure({f"restricted.{key}": blocks})
    innocent = restricted.make()
    with refused(complaint):
        restricted.make(**asks)
    with refused(complaint):
        restricted.request("PATCH", f"instances/{innocent}", asks)
    with refused(complaint):
        restricted.request("POST", "profiles", {"name": "sly", **asks})
    restricted.request("POST", "profiles", {"name": "sly"})
    with refused(complaint):
        restricted.request("PATCH", "profiles/sly", asks)
    assert restricted.names("instances") == [innocent]
    assert restricted.request("GET", "profiles/sly")["config"] == {}

    restricted.configure({f"restricted.{key}": allows})
    allowed = restricted.make(**asks)
    with refused(f'container "{allowed}"'):
        restricted.configure({f"restricted.{key}": blocks})
    restricted.configure({"restricted": "false", f"restricted.{key}": blocks})
    with refused(f'container "{allowed}"'):
        restricted.configure({"restricted": "true"})
    restricted.request("DELETE", f"instances/{allowed}")
    restricted.configure({"restricted": "true"})


@pytest.mark.parametrize("kind", ["gpu", "infiniband", "pci", "unix-hotplug", "usb"])
def test_devices_that_there_are_not_stay_refused_where_they_are_allowed(restricted: Project, kind: str) -> None:
    restricted.configure({f"restricted.devices.{kind}": "allow"})
    with refused("not supported", 501):
        restricted.make(**device(type=kind))


def test_containers_have_to_be_isolated(restricted: Project) -> None:
    restricted.configure({"restricted.containers.privilege": "isolated"})
    with refused("Non-isolated containers are forbidden"):
        restricted.make()
    restricted.make(**keys(security__idmap__isolated="true"))


def test_managed_disks_and_paths(restricted: Project, tmp_path: Path) -> None:
    for name in ("volume",):
        restricted.request("POST", "storage-pools/default/volumes/custom", {"name": name})
    managed = device(type="disk", pool="default", source="volume", path="/v")
    made = restricted.make(**managed)
    with refused("Disk devices are forbidden"):
        restricted.configure({"restricted.devices.disk": "block"})
    restricted.request("DELETE", f"instances/{made}")
    restricted.configure({"restricted.devices.disk": "block"})
    with refused("Disk devices are forbidden"):
        restricted.make(**managed)

    allowed = tmp_path / "allowed"
    (allowed / "in").mkdir(parents=True)
    paths = {"restricted.devices.disk": "allow", "restricted.devices.disk.paths": f"/nowhere,{allowed}"}
    restricted.configure(paths)
    for source in (tmp_path, f"{allowed}x", f"{allowed}/../other", "/"):
        with refused("not allowed"):
            restricted.make(**device(type="disk", source=str(source), path="/v"))
    restricted.make(**device(type="disk", source=f"{allowed}/in", path="/v"))


def test_snapshots(restricted: Project) -> None:
    made = restricted.make()
    volume = "storage-pools/default/volumes/custom"
    restricted.request("POST", volume, {"name": "v"})
    for path in (f"instances/{made}/snapshots", f"{volume}/v/snapshots"):
        with refused("doesn't allow for snapshot creation"):
            restricted.request("POST", path, {"name": "s"})
    restricted.configure({"restricted.snapshots": "allow"})
    for path in (f"instances/{made}/snapshots", f"{volume}/v/snapshots"):
        restricted.request("POST", path, {"name": "s"})


def test_going_back_to_what_is_not_allowed_any_more(restricted: Project) -> None:
    restricted.configure({"restricted.snapshots": "allow", "restricted.containers.nesting": "allow"})
    made = restricted.make(**keys(security__nesting="true"))
    restricted.request("POST", f"instances/{made}/snapshots", {"name": "s"})
    restricted.request("PATCH", f"instances/{made}", keys(security__nesting=""))
    restricted.configure({"restricted.containers.nesting": "block"})
    with refused("Container nesting is forbidden"):
        restricted.request("PUT", f"instances/{made}", {"restore": "s"})
    with refused("Container nesting is forbidden"):
        restricted.make(source={"type": "copy", "source": f"{made}/s"})
    assert restricted.request("GET", f"instances/{made}")["config"].get("security.nesting") is None


def test_going_back_to_what_came_with_a_backup(restricted: Project, daemon: Daemon) -> None:
    """Nobody has looked at a snapshot's devices when they came: no restriction knows of what cannot be configured."""
    restricted.configure({"restricted.snapshots": "allow"})
    made = restricted.make()
    restricted.request("POST", f"instances/{made}/snapshots", {"name": "s"})
    for sly, complaint in (
        ({"type": "nic", "network": "any", "nictype": "physical", "parent": "lo"}, "nictype=physical"),
        ({"type": "disk", "path": "/", "pool": "default"}, "Only one root device is allowed"),
        ({"type": "disk", "path": "/v", "pool": "default", "source": "/etc"}, "absolute paths"),
    ):
        with daemon.database() as database:  # as the import of a backup leaves it
            database.execute("UPDATE instances_snapshots SET devices = ?", (json.dumps({"d": sly}),))
        with refused(complaint, 501):
            restricted.request("PUT", f"instances/{made}", {"restore": "s"})
    assert restricted.request("GET", f"instances/{made}")["devices"] == {}


def test_backups(restricted: Project) -> None:
    made = restricted.make()
    volume = "storage-pools/default/volumes/custom"
    restricted.request("POST", volume, {"name": "v"})
    for path in (f"instances/{made}", f"{volume}/v"):
        with refused("doesn't allow for backup creation"):
            restricted.request("POST", f"{path}/backups", {"name": "b"})
        with refused("doesn't allow for backup creation"):
            restricted.request("GET", f"{path}/export")
    restricted.configure({"restricted.backups": "allow"})
    for path in (f"instances/{made}", f"{volume}/v"):
        restricted.request("POST", f"{path}/backups", {"name": "b"})
        restricted.request("DELETE", f"{path}/backups/b")


def test_volatile_keys(restricted: Project) -> None:
    key = "volatile.eth0.host_name"
    with refused(f'Setting "{key}"'):
        restricted.make(config={key: "lo"})
    made = restricted.make(config={"volatile.d.hwaddr": "00:16:3e:00:00:01"})
    with refused(f'Setting "{key}"'):
        restricted.request("PATCH", f"instances/{made}", {"config": {key: "lo"}})
    whole = restricted.request("GET", f"instances/{made}")
    restricted.request("PUT", f"instances/{made}", {**whole, "description": "sent back"})
    restricted.configure({"restricted.containers.lowlevel": "allow"})
    restricted.request("PATCH", f"instances/{made}", {"config": {key: "lo"}})


def test_copies_and_imports(restricted: Project, daemon: Daemon, tmp_path: Path) -> None:
    with project(daemon) as free:
        made = free.make(**keys(security__nesting="true"))
        with refused("Container nesting is forbidden"):
            restricted.make(source={"type": "copy", "source": made, "project": free.name})
        backup, other = tmp_path / "backup.tar", tmp_path / "other.tar"
        daemon.command("export", "--project", free.name, made, str(backup))
        noted = free.make(config={"volatile.eth0.host_name": "lo", "volatile.eth0.hwaddr": "00:16:3e:00:00:01"})
        volume = Path(f"{daemon.dir}/storage-pools/default/containers/{free.name}_{noted}")
        (volume / "rootfs").mkdir(exist_ok=True)
        (volume / "metadata.yaml").touch()
        free.request("POST", f"instances/{noted}/snapshots", {"name": "s"})
        daemon.command("export", "--project", free.name, noted, str(other))
    done = daemon.command("import", "--project", restricted.name, str(backup), check=False)
    assert "Container nesting is forbidden" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert restricted.names("instances") == []
    daemon.command("import", "--project", restricted.name, str(other))
    for snapshot in ("", "/snapshots/s"):
        config = restricted.request("GET", f"instances/{noted}{snapshot}")["config"]
        assert "volatile.eth0.host_name" not in config
        assert config["volatile.eth0.hwaddr"] == "00:16:3e:00:00:01"


def test_profiles_of_the_default_project(daemon: Daemon) -> None:
    profile = unique("p")
    daemon.request("POST", "/1.0/profiles", {"name": profile})
    with project(daemon, restricted="true", features__profiles="false") as restricted:
        made = restricted.make(profiles=["default", profile])
        with refused(f'container "{made}"'):
            daemon.request("PATCH", f"/1.0/profiles/{profile}", keys(security__nesting="true"))
        assert daemon.request("GET", f"/1.0/profiles/{profile}")["config"] == {}
    daemon.request("DELETE", f"/1.0/profiles/{profile}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("restricted", "perhaps"),
        ("restricted.snapshots", "managed"),
        ("restricted.idmap.uid", "5-1"),
        ("restricted.idmap.gid", "root"),
        ("restricted.devices.disk.paths", "relative"),
        ("restricted.networks.subnets", "10.0.0.0/8"),
        ("restricted.nonsense", "allow"),
    ],
)
def test_bad_values(restricted: Project, key: str, value: str) -> None:
    with refused(key, 400):
        restricted.configure({key: value})


def test_networks_that_may_be_used(restricted: Project, daemon: Daemon) -> None:
    bridge = {"config": {"ipv4.address": "none", "ipv6.address": "none"}}
    names = unique("a")[:12], unique("b")[:12]
    for name in names:
        daemon.request("POST", "/1.0/networks", {"name": name, **bridge})
    try:
        assert sorted(restricted.names("networks")) == sorted(names)
        restricted.configure({"restricted.networks.access": names[0]})
        assert restricted.names("networks") == [names[0]]
        with refused("Network not found", 404):
            restricted.request("GET", f"networks/{names[1]}")
        with refused("Network not allowed in project"):
            restricted.make(**device(type="nic", network=names[1]))
        used = restricted.make(**device(type="nic", network=names[0]))
        with refused("Network not allowed in project"):
            restricted.configure({"restricted.networks.access": names[1]})
        restricted.request("DELETE", f"instances/{used}")
        restricted.configure({"restricted.devices.nic": "block"})
        assert restricted.names("networks") == []
    finally:
        for name in names:
            daemon.request("DELETE", f"/1.0/networks/{name}")


def test_what_networks_of_its_own_may_be(daemon: Daemon) -> None:
    name = unique("n")[:12]
    plain = {"ipv4.address": "10.199.77.1/24", "ipv6.address": "none"}
    with project(daemon, restricted="true", features__networks="true") as made:
        for config, text in (
            ({"bridge.external_interfaces": "ext0"}, 'Uplink "ext0" is not allowed'),
            ({"lan.interface": "ext0"}, 'Uplink "ext0" is not allowed'),
            ({"raw.dnsmasq": "dhcp-script=/bin/sh"}, "raw.dnsmasq is forbidden"),
            ({"ipv4.routes": "192.0.2.0/24"}, "192.0.2.0/24 is not allowed"),
            ({"ipv4.nat.address": "192.0.2.1"}, "192.0.2.1 is not allowed"),
        ):
            with refused(text):
                made.request("POST", "networks", {"name": name, "config": plain | config})
        made.request("POST", "networks", {"name": name, "config": plain})
        with refused("raw.dnsmasq is forbidden"):
            made.request("PATCH", f"networks/{name}", {"config": {"raw.dnsmasq": "dhcp-script=/bin/sh"}})
        with refused("192.0.2.1 is not allowed"):
            made.request("POST", f"networks/{name}/forwards", {"listen_address": "192.0.2.1"})
        made.configure({"restricted.networks.subnets": "eth0:192.0.2.0/28", "restricted.networks.uplinks": "ext0"})
        made.request("POST", f"networks/{name}/forwards", {"listen_address": "192.0.2.1"})
        made.request("PATCH", f"networks/{name}", {"config": {"ipv4.routes": "192.0.2.8/29"}})
        with refused(f'Network "{name}": Address 192.0.2.8/29 is not allowed'):
            made.configure({"restricted.networks.subnets": ""})
        with refused("192.0.2.0/24 is not allowed"):
            made.request("PATCH", f"networks/{name}", {"config": {"ipv4.routes": "192.0.2.0/24"}})


def test_links_lead_out_of_no_path(restricted: Project, daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "in").mkdir(parents=True)
    (allowed / "in/file").write_text("mine")
    (allowed / "out").symlink_to("/etc")
    (allowed / "near").symlink_to("in")
    tmp_path.chmod(0o755)
    restricted.configure({"restricted.devices.disk": "allow", "restricted.devices.disk.paths": str(allowed)})
    restricted.configure({"features.images": "false"})
    bad = device(type="disk", source=f"{allowed}/out", path="/v")
    good = device(type="disk", source=f"{allowed}/near", path="/v")
    made = restricted.make(source={"type": "image", "alias": busybox}, **bad)
    complaint = "where it has to be"
    with refused(complaint):
        restricted.request("PUT", f"instances/{made}/state", {"action": "start"})
    restricted.request("PATCH", f"instances/{made}", good)
    restricted.request("PUT", f"instances/{made}/state", {"action": "start"})
    shown = daemon.command("exec", "--project", restricted.name, made, "--", "cat", "/v/file")
    assert shown.stdout == "mine"
    with refused(complaint):
        restricted.request("PATCH", f"instances/{made}", {"devices": {"e": {**bad["devices"]["d"], "path": "/w"}}})
    with refused(complaint):
        restricted.request("PATCH", f"instances/{made}", bad)
    assert daemon.command("exec", "--project", restricted.name, made, "--", "ls", "/v").stdout == "file\n"
