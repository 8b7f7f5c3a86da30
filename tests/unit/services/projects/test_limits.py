from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pylxc.db.models import Network, StorageVolume
from pylxc.errors import Forbidden
from pylxc.services.instances.expand import Record
from pylxc.services.projects import limits
from pylxc.services.projects.holdings import Holdings
from tests.support.records import record

GIB = 1 << 30


def instance(name: str, size: str = "", **config: str) -> Record:
    root = {"type": "disk", "path": "/", "pool": "p", "size": size}
    return record(
        name,
        project="shop",
        expanded_config={f"limits.{key}": value for key, value in config.items()},
        expanded_devices={"root": root},
    )


def held(*instances: Record, sizes: tuple[str, ...] = (), networks: int = 0, **config: str) -> Holdings:
    return Holdings(
        project="shop",
        config={f"limits.{key}": value for key, value in config.items()},
        instances=instances,
        profiles=(),
        volumes=tuple(StorageVolume(name=f"v{n}", config={"size": s} if s else {}) for n, s in enumerate(sizes)),
        networks=tuple(Network(name=f"n{n}", config={}) for n in range(networks)),
    )


@pytest.mark.parametrize(
    "allowed",
    [
        held(),
        held(instance("a"), instances="1", containers="1"),
        replace(held(instance("a")), config={"limits.virtual-machines": "0"}),
        held(instance("a", memory="1GiB"), instance("b", memory="1024MiB"), memory="2GiB"),
        held(instance("a", cpu="2"), instance("b", cpu="2"), cpu="4"),
        held(instance("a", processes="100"), processes="100"),
        held(instance("a", "1GiB"), sizes=("1GiB",), disk="2GiB"),
        replace(held(networks=2), config={"limits.networks": "2"}),
    ],
)
def test_what_is_within_limits(allowed: Holdings) -> None:
    limits.check(allowed)


@pytest.mark.parametrize(
    ("much", "text"),
    [
        (held(instance("a"), instance("b"), instances="1"), 'Reached maximum number of instances in project "shop"'),
        (held(instance("a"), containers="0"), 'Reached maximum number of instances of type "container"'),
        (
            held(instance("a", memory="1GiB"), instance("b", memory="1025MiB"), memory="2GiB"),
            'Reached maximum aggregate value "2GiB" for "limits.memory" in project "shop"',
        ),
        (held(instance("a", cpu="5"), cpu="4"), "limits.cpu"),
        (held(instance("a", processes="101"), processes="100"), "limits.processes"),
        (held(instance("a", "1GiB"), sizes=("1025MiB",), disk="2GiB"), "limits.disk"),
        (held(instance("a"), memory="2GiB"), 'Instance "a" in project "shop" has no "limits.memory" config'),
        (held(instance("a"), disk="2GiB"), "has no 'size' config set on the root device"),
        (held(sizes=("",), disk="2GiB"), 'Custom volume "v0" in project "shop" has no \'size\' config set'),
        (held(instance("a", memory="50%"), memory="2GiB"), "shares of the host cannot be summed up"),
        (held(instance("a", cpu="0-1"), cpu="4"), "CPUs can't be pinned"),
        (held(instance("a", cpu="0"), cpu="4"), "has limits.cpu '0': that is no limit"),
        (held(instance("a", "0"), disk="2GiB"), 'Instance "a" in project "shop" has limits.disk \'0\''),
        (held(sizes=("0MB",), disk="2GiB"), "has limits.disk '0MB': that is no limit"),
    ],
)
def test_what_is_too_much(much: Holdings, text: str) -> None:
    with pytest.raises(Forbidden) as caught:
        limits.check(much)
    assert text in caught.value.message


def test_only_changed_limits_are_looked_at() -> None:
    much = held(instance("a", memory="3GiB"), memory="2GiB", instances="1")
    limits.check_changed(much, much.config)
    with pytest.raises(Forbidden, match=r'"limits.memory" is too low: there currently are 3.00GiB in project "shop"'):
        limits.check_changed(much, {"limits.instances": "1"})
    with pytest.raises(Forbidden, match=r'"limits.instances" is too low: there currently are 2 instances'):
        limits.check_changed(held(instance("a"), instance("b"), instances="1"), {})


def test_usage_leaves_out_what_says_nothing() -> None:
    instances = (instance("a", "1GiB", memory="1GiB", cpu="0-3"), instance("b", memory="50%", cpu="2"))
    found: dict[str, Any] = limits.usage(held(*instances, sizes=("2GiB", ""), networks=1, memory="4GiB", instances="5"))
    assert found == {
        "containers": (-1, 2),
        "cpu": (-1, 2),
        "disk": (-1, 3 * GIB),
        "instances": (5, 2),
        "memory": (4 * GIB, GIB),
        "networks": (-1, 1),
        "processes": (-1, 0),
        "virtual-machines": (-1, 0),
    }
