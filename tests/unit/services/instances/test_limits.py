from __future__ import annotations

import os

import pytest

from pylxc.runtime.spec import Limits
from pylxc.services.instances import limits


def test_nothing_set_is_no_limit() -> None:
    assert limits.compute({}, None) == Limits()


def test_memory() -> None:
    assert limits.compute({"limits.memory": "64MiB"}, None).memory == 64 << 20
    soft = limits.compute({"limits.memory": "64MiB", "limits.memory.enforce": "soft"}, None)
    assert (soft.memory, soft.memory_soft) == (None, 64 << 20)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert limits.compute({"limits.memory": "50%"}, None).memory == total // 2
    assert limits.compute({"limits.memory.swap": "false"}, None).swap == 0


@pytest.mark.parametrize(
    ("config", "weight"),
    [
        ({}, None),
        ({"limits.cpu.allowance": "100%"}, 100),
        ({"limits.cpu.allowance": "50%"}, 51),
        ({"limits.cpu.priority": "0"}, 99),
        ({"limits.cpu.allowance": "25ms/100ms"}, None),
    ],
)
def test_cpu_weight(config: dict[str, str], weight: int | None) -> None:
    assert limits.compute(config, None).cpu_weight == weight


def test_cpu_quota_in_microseconds() -> None:
    hard = limits.compute({"limits.cpu.allowance": "25ms/100ms"}, None)
    assert (hard.cpu_quota, hard.cpu_period) == (25_000, 100_000)


def test_priorities_of_swapping_and_huge_pages() -> None:
    assert limits.compute({"limits.memory.swap.priority": "10"}, None).swappiness == 60
    assert limits.compute({"limits.memory.swap.priority": "0"}, None).swappiness == 70
    assert limits.compute({"limits.hugepages.2MB": "4MiB"}, None).hugepages == {"2MB": 4 << 20}


def test_rlimits() -> None:
    config = {"limits.kernel.nofile": "10:20", "limits.kernel.core": "unlimited", "limits.memory": "1GiB"}
    assert set(limits.rlimits(config)) == {("nofile", 10, 20), ("core", -1, -1)}
