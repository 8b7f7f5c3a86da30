"""Setting a server up: by itself, minimal, by preseed; whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon import ApiError, Daemon


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        daemon.start()
        yield daemon
    finally:
        assert daemon.close() == []


def picture(daemon: Daemon) -> dict[str, Any]:
    """Return everything that a preseed can change."""
    assert daemon.netns
    return {
        "config": daemon.request("GET", "/1.0")["config"],
        "pools": daemon.request("GET", "/1.0/storage-pools?recursion=1"),
        "networks": [n for n in daemon.request("GET", "/1.0/networks?recursion=1") if n["managed"]],
        "profiles": daemon.request("GET", "/1.0/profiles?recursion=1"),
        "projects": [
            {k: v for k, v in project.items() if k != "used_by"}
            for project in daemon.request("GET", "/1.0/projects?recursion=1")
        ],
        "links": sorted(daemon.netns.links()),
    }


def init(daemon: Daemon, body: object) -> None:
    daemon.request("POST", "/1.0/pylxc/init", body)


def test_auto_makes_pool_bridge_and_profile_once(daemon: Daemon) -> None:
    init(daemon, {"auto": True})
    (pool,) = daemon.request("GET", "/1.0/storage-pools?recursion=1")
    assert (pool["name"], pool["driver"]) == ("default", "dir")
    network = daemon.request("GET", "/1.0/networks/pylxcbr0")
    assert network["managed"]
    assert network["config"]["ipv4.address"].endswith("/24")
    assert network["config"]["ipv4.nat"] == "true"
    assert daemon.netns
    assert "pylxcbr0" in daemon.netns.links()
    profile = daemon.request("GET", "/1.0/profiles/default")
    assert profile["devices"] == {
        "root": {"type": "disk", "path": "/", "pool": "default"},
        "eth0": {"type": "nic", "name": "eth0", "network": "pylxcbr0"},
    }
    assert daemon.request("GET", "/1.0")["environment"]["storage"] == "dir"
    before = picture(daemon)
    init(daemon, {"auto": True})
    assert picture(daemon) == before


def test_minimal_makes_no_bridge(daemon: Daemon) -> None:
    init(daemon, {"minimal": True})
    assert [n for n in daemon.request("GET", "/1.0/networks?recursion=1") if n["managed"]] == []
    assert list(daemon.request("GET", "/1.0/profiles/default")["devices"]) == ["root"]


PRESEED: dict[str, Any] = {
    "config": {"user.note": "hello", "core.shutdown_timeout": 3},
    "projects": [{"name": "p1", "config": {"features.images": "false"}}],
    "storage_pools": [{"name": "tank", "driver": "dir", "description": "first"}],
    "networks": [{"name": "ptbr7", "type": "bridge", "config": {"ipv4.address": "10.97.3.1/24"}}],
    "profiles": [
        {"name": "default", "devices": {"root": {"type": "disk", "path": "/", "pool": "tank"}}},
        {"name": "big", "project": "p1", "config": {"limits.memory": "1GiB"}, "description": "large"},
    ],
}


def test_preseed_makes_and_then_changes(daemon: Daemon) -> None:
    init(daemon, {"preseed": PRESEED})
    assert daemon.request("GET", "/1.0")["config"] == {"user.note": "hello", "core.shutdown_timeout": "3"}
    assert daemon.request("GET", "/1.0/storage-pools/tank")["description"] == "first"
    assert daemon.request("GET", "/1.0/networks/ptbr7")["config"]["ipv4.address"] == "10.97.3.1/24"
    assert daemon.request("GET", "/1.0/profiles/big?project=p1")["config"] == {"limits.memory": "1GiB"}
    assert daemon.request("GET", "/1.0/profiles/default")["devices"]["root"]["pool"] == "tank"

    again = {
        "config": {"user.other": "x"},
        "profiles": [{"name": "big", "project": "p1", "config": {"limits.cpu": "2"}}],
        "storage_pools": [{"name": "tank", "driver": "dir", "description": "second"}],
    }
    init(daemon, {"preseed": again})
    assert daemon.request("GET", "/1.0")["config"]["user.note"] == "hello"
    big = daemon.request("GET", "/1.0/profiles/big?project=p1")
    assert big["config"] == {"limits.memory": "1GiB", "limits.cpu": "2"}
    assert big["description"] == "large"
    assert daemon.request("GET", "/1.0/storage-pools/tank")["description"] == "second"


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ({"name": "bad", "config": {"limits.nonsense": "1"}}, 400),
        ({"name": "", "config": {}}, 400),
        ({"name": "x", "project": "nowhere"}, 404),
    ],
)
def test_a_preseed_that_fails_at_its_end_changes_nothing(daemon: Daemon, last: dict[str, Any], status: int) -> None:
    init(daemon, {"minimal": True})
    before = picture(daemon)
    preseed = {**PRESEED, "profiles": [*PRESEED["profiles"], last]}
    with pytest.raises(ApiError) as caught:
        init(daemon, {"preseed": preseed})
    assert caught.value.status == status
    assert picture(daemon) == before


@pytest.mark.parametrize("body", [{}, {"auto": True, "minimal": True}, {"preseed": {"networks": {}}}, {"auto": "yes"}])
def test_a_senseless_request_is_refused(daemon: Daemon, body: object) -> None:
    with pytest.raises(ApiError) as caught:
        init(daemon, body)
    assert caught.value.status == 400


def test_the_preseed_of_another_driver_is_refused(daemon: Daemon) -> None:
    init(daemon, {"preseed": {"storage_pools": [{"name": "tank", "driver": "dir"}]}})
    with pytest.raises(ApiError) as caught:
        init(daemon, {"preseed": {"storage_pools": [{"name": "tank", "driver": "zfs"}]}})
    assert caught.value.status == 400
