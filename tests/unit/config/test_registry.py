from __future__ import annotations

import pytest

from pylxc.config.device import table
from pylxc.config.instance import INSTANCE
from pylxc.config.network import BRIDGE
from pylxc.config.registry import TABLES, metadata
from pylxc.config.server import SERVER
from pylxc.errors import BadRequest, NotSupported


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits.cpu", "2"),
        ("limits.cpu", "0-3,6"),
        ("limits.cpu", "1-1"),
        ("limits.cpu.allowance", "50%"),
        ("limits.cpu.allowance", "25ms/100ms"),
        ("limits.memory", "512MiB"),
        ("limits.memory", "10%"),
        ("limits.kernel.nofile", "1024:unlimited"),
        ("security.nesting", "yes"),
        ("security.syscalls.deny", "keyctl errno 1\nptrace"),
        ("raw.idmap", "both 1000 1000\nuid 50-60 500-510"),
        ("snapshots.schedule", "0 6 * * *"),
        ("snapshots.schedule", "@daily, @startup"),
        ("snapshots.expiry", "1M 2H 3d 4w 5m 6y"),
        ("environment.LANG", "C"),
        ("user.my.own.key", "anything at all"),
        ("volatile.eth0.hwaddr", "00:16:3e:00:00:01"),
        ("volatile.idmap.current", '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":65536}]'),
        ("volatile.idmap.next", "[]"),
        ("volatile.my.nic.last_state.created", "false"),
        ("volatile.ib0.last_state.hwaddr", "a0:00:02:20:fe:80:00:00:00:00:00:00:7c:fe:90:03:00:2b:9c:31"),
        ("boot.autostart", ""),
    ],
)
def test_accepts_what_lxd_accepts(key: str, value: str) -> None:
    INSTANCE.validate({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits.cpu", "two"),
        ("limits.cpu", "3-1"),
        ("limits.cpu", "0-99999999999"),
        ("limits.cpu", ",".join(["0-9999"] * 1000)),
        ("limits.cpu.allowance", "150%"),
        ("limits.cpu.allowance", "25ms/0ms"),
        ("limits.memory", "lots"),
        ("limits.memory", "0%"),
        ("limits.memory", "9" * 5000),
        ("limits.cpu.priority", "11"),
        ("limits.processes", "0"),
        ("limits.kernel.nofile", "1:2:3"),
        ("limits.kernel.nofile", "3:2"),
        ("limits.kernel.nofile", "9" * 5000),
        ("limits.kernel.nofil", "3"),
        ("security.nesting", "maybe"),
        ("raw.idmap", "both 1000"),
        ("raw.idmap", "uid 50-60 500-511"),
        ("snapshots.schedule", "61 * * * *"),
        ("snapshots.schedule", "@fortnightly"),
        ("snapshots.schedule", "0 0 31 2 *"),
        ("snapshots.expiry", "1d 2d"),
        ("snapshots.expiry", f"{'9' * 5000}d"),
        ("volatile.eth0.hwaddr", "00:16:3e:00:00:01\n00:16:3e:00:00:02,10.0.0.9,other"),
        ("volatile.eth0.name", "../x"),
        ("volatile.idmap.base", "-1"),
        ("volatile.idmap.base", "4294967296"),
        ("volatile.idmap.current", "[{]"),
        ("volatile.idmap.current", "[3]"),
        ("volatile.idmap.current", '[{"Isuid":true,"Isgid":false,"Hostid":"x","Nsid":0,"Maprange":1}]'),
        ("volatile.last_state.idmap", '{"Isuid":true}'),
    ],
)
def test_refuses_malformed_values_by_key(key: str, value: str) -> None:
    with pytest.raises(BadRequest, match=key.replace(".", r"\.")):
        INSTANCE.validate({key: value})


def test_names_the_nearest_key() -> None:
    with pytest.raises(BadRequest, match=r"limits\.memroy .*did you mean limits\.memory\?"):
        INSTANCE.validate({"limits.memroy": "1GiB"})


@pytest.mark.parametrize("key", ["user.", "environment.", "volatile.", "limits.kernel.", "", "nonsense"])
def test_refuses_unknown_keys(key: str) -> None:
    with pytest.raises(BadRequest, match="Unknown"):
        INSTANCE.validate({key: "1"})


def test_knows_defaults() -> None:
    assert INSTANCE.is_true({}, "limits.memory.swap")
    assert not INSTANCE.is_true({"limits.memory.swap": "off"}, "limits.memory.swap")
    assert SERVER.value({}, "core.shutdown_timeout") == "5"


def test_checks_network_addresses() -> None:
    BRIDGE.validate({"ipv4.address": "10.1.2.1/24", "ipv6.address": "none", "ipv4.dhcp.expiry": "12h"})
    for bad in ("10.1.2.1", "10.1.2.300/24", "fd00::1/64"):
        with pytest.raises(BadRequest):
            BRIDGE.validate({"ipv4.address": bad})
    for refused in ({"tunnel.a.id": "3"}, {"security.acls": "web"}):
        with pytest.raises(NotSupported, match=next(iter(refused))):
            BRIDGE.validate(refused)
    for damaged in ({"dns.domain": "a b"}, {"dns.search": "x,,y"}, {"ipv4.dhcp.expiry": "1h\nuser=root"}):
        with pytest.raises(BadRequest):
            BRIDGE.validate(damaged)
    BRIDGE.validate({"ipv4.dhcp.ranges": "10.1.2.2-10.1.2.9, 10.1.2.20-10.1.2.30"})


def test_finds_the_table_of_a_device() -> None:
    table({"type": "disk"}).validate({"type": "disk", "path": "/", "pool": "default", "user.x": "y"})
    table({"type": "nic", "network": "lxdbr0"}).validate({"type": "nic", "network": "lxdbr0", "name": "eth0"})
    for device in ({}, {"type": "floppy"}, {"type": "nic", "nictype": "carrier-pigeon"}):
        with pytest.raises(BadRequest):
            table(device)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_documented_and_its_default_passes_its_check(name: str) -> None:
    for key in TABLES[name].keys:
        assert key.help.endswith((".", ")")), key.name
        assert not (key.default and key.unset), key.name
        if key.default:
            key.check(key.default)
    assert len({key.name for key in TABLES[name].keys}) == len(TABLES[name].keys)


def test_metadata_describes_every_key() -> None:
    keys = metadata()["configs"]["instance"]["instance"]["keys"]
    assert {"limits.memory"} <= {name for entry in keys for name in entry}
