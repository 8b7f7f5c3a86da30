from __future__ import annotations

from dataclasses import replace

import pytest

from pylxc.config.project import PROJECT
from pylxc.db.models import Network, Profile
from pylxc.errors import Forbidden
from pylxc.services.projects import restrictions
from pylxc.services.projects.holdings import Holdings

ELSEWHERE = ("backups", "cluster.groups", "cluster.target", "snapshots", "virtual-machines.lowlevel")
"""What is no row of the tables: whole kinds of things, or what there is not."""


def holds(profile: Profile, **config: str) -> Holdings:
    given = {key.replace("__", "."): value for key, value in config.items()}
    return Holdings(
        project="shop",
        config={"restricted": "true", **{f"restricted.{key}": value for key, value in given.items()}},
        instances=(),
        profiles=(profile,),
        volumes=(),
        networks=(),
    )


def with_config(**config: str) -> Profile:
    return Profile(name="p", config={key.replace("__", "."): value for key, value in config.items()}, devices={})


def with_device(**device: str) -> Profile:
    return Profile(name="p", config={}, devices={"d": {key.replace("__", "."): v for key, v in device.items()}})


def test_every_key_has_its_place() -> None:
    keys = {key.name.removeprefix("restricted.") for key in PROJECT.keys if key.name.startswith("restricted.")}
    rows = {rule.restriction for rule in restrictions.KEY_RULES}
    rows |= {restriction for restriction, _ in restrictions.DEVICE_RULES.values()}
    others = {key for key in keys if key.startswith(("idmap.", "networks.")) or key == "devices.disk.paths"}
    assert len(keys) == 26
    assert keys == rows | others | set(ELSEWHERE)


def test_an_unrestricted_project_allows_anything() -> None:
    held = holds(with_config(security__nesting="true"))
    restrictions.check(replace(held, config={**held.config, "restricted": "false"}))
    with pytest.raises(Forbidden, match=r'on profile "p" of project "shop": Container nesting is forbidden'):
        restrictions.check(held)


@pytest.mark.parametrize("value", ["false", "0", "", "off"])
def test_turning_a_forbidden_thing_off_is_allowed(value: str) -> None:
    restrictions.check(holds(with_config(security__nesting=value, security__privileged=value)))


@pytest.mark.parametrize("kind", sorted(restrictions.DEVICE_RULES))
def test_devices(kind: str) -> None:
    profile = with_device(type=kind, source="/srv")
    with pytest.raises(Forbidden, match=r'Invalid device "d" on profile "p" of project "shop"'):
        restrictions.check(holds(profile))
    restrictions.check(holds(profile, **{f"devices__{kind}": "allow"}))


def test_routes_of_nics() -> None:
    own = {"networks__subnets": "eth0:192.0.2.0/28"}
    restrictions.check(holds(with_device(type="nic", network="br", ipv4__routes="192.0.2.8/29"), **own))
    for routes in ("192.0.2.8/29, 198.51.100.0/24", "0.0.0.0/0"):
        with pytest.raises(Forbidden, match=r"Route .* is not allowed in project"):
            restrictions.check(holds(with_device(type="nic", network="br", ipv4__routes=routes), **own))


def test_interception_in_full() -> None:
    safe = with_config(security__syscalls__intercept__mount="true")
    sharp = with_config(security__syscalls__intercept__mount__allowed="ext4")
    restrictions.check(holds(safe, containers__interception="allow"))
    with pytest.raises(Forbidden, match="low-level"):
        restrictions.check(holds(sharp, containers__interception="allow"))
    restrictions.check(holds(sharp, containers__interception="full"))


@pytest.mark.parametrize(
    ("raw", "is_allowed"),
    [
        ("uid 1000 0", True),
        ("uid 1000-1009 0-9", True),
        ("uid 1000-1010 0-10", False),
        ("uid 0 0", False),
        ("gid 1000 0", False),
        ("both 1000 0", False),
        ("both 50 0", True),
        ("uid 1000 0\ngid 7 7", False),
    ],
)
def test_ids(raw: str, is_allowed: bool) -> None:
    held = holds(with_config(raw__idmap=raw), idmap__uid="50,1000-1009", idmap__gid="50")
    if is_allowed:
        restrictions.check(held)
    else:
        with pytest.raises(Forbidden, match=r"raw.idmap"):
            restrictions.check(held)


@pytest.mark.parametrize(
    ("paths", "source", "root"),
    [
        ("/srv", "/srv", "/srv"),
        ("/srv", "/srv/a", "/srv"),
        ("/srv/,/home", "/home/b/../c", "/home"),
        ("/srv", "/srv2", ""),
        ("/srv", "/srv/../etc", ""),
        ("/", "/etc", "/"),
    ],
)
def test_paths_of_disks(paths: str, source: str, root: str) -> None:
    config = holds(with_config(), devices__disk="allow", devices__disk__paths=paths).config
    assert restrictions.disk_root(config, source) == root


@pytest.mark.parametrize(
    ("config", "name", "managed", "is_allowed"),
    [
        ({}, "br", True, True),
        ({}, "eth0", False, False),
        ({"devices__nic": "block"}, "br", True, False),
        ({"devices__nic": "allow"}, "eth0", False, True),
        ({"networks__access": "a, br"}, "br", True, True),
        ({"networks__access": "a"}, "br", True, False),
    ],
)
def test_networks(config: dict[str, str], name: str, managed: bool, is_allowed: bool) -> None:
    found = restrictions.network_allowed(holds(with_config(), **config).config, name, managed=managed)
    assert found is is_allowed


def test_uplinks_and_addresses() -> None:
    config = holds(
        with_config(), networks__uplinks="eth1", networks__subnets="eth0:192.0.2.0/25,eth0:2001:db8::/64"
    ).config
    restrictions.check_network(config, {"bridge.external_interfaces": "eth1", "ipv4.routes": "192.0.2.0/26"})
    restrictions.refuse_address(config, "192.0.2.127")
    restrictions.refuse_address(config, "2001:db8::1")
    bad = {"bridge.external_interfaces": "eth1, eth0"}
    with pytest.raises(Forbidden, match='"eth0"'):
        restrictions.check_network(config, bad)
    held = replace(holds(with_config()), config=config, networks=(Network(name="br", config=bad),))
    with pytest.raises(Forbidden, match='Network "br": Uplink "eth0"'):
        restrictions.check(held)
    for address in ("192.0.2.128", "2001:db9::1"):
        with pytest.raises(Forbidden, match=address):
            restrictions.refuse_address(config, address)
    restrictions.refuse_address({}, "192.0.2.128")
    restrictions.check_network({}, bad)
