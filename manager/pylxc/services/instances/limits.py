"""From `limits.*` to what the runtime writes into cgroups."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pylxc import validate
from pylxc.config.instance import INSTANCE
from pylxc.runtime.spec import IoLimit, Limits
from pylxc.services.instances import apparmor
from pylxc.units import parse_bytes

_SHARES = 1024
"""cpu.shares of an instance without limits; cgroup v2's cpu.weight 100."""


def compute(config: Mapping[str, str], cpus: str | None, io: tuple[IoLimit, ...] = ()) -> Limits:
    """Return an instance's limits.

    Args:
        config: its expanded configuration, valid.
        cpus: the cpuset that `limits.cpu` came to, from `cpus.Cpus`.
        io: what its disks come to, from `disk_limits.of`.
    """
    memory = memory_bytes(config.get("limits.memory", ""))
    is_soft = config.get("limits.memory.enforce") == "soft"
    quota, period = _cpu_quota(config.get("limits.cpu.allowance", ""))
    processes = config.get("limits.processes")
    priority = config.get("limits.disk.priority")
    return Limits(
        memory=None if is_soft else memory,
        memory_soft=memory if is_soft else None,
        swap=0 if validate.is_false(config.get("limits.memory.swap")) else None,
        processes=int(processes) if processes else None,
        cpus=cpus,
        cpu_quota=quota,
        cpu_period=period,
        cpu_weight=_cpu_weight(config),
        io_weight=max(1, int(priority) * 20) if priority else None,
        swappiness=_swappiness(config.get("limits.memory.swap.priority", "")),
        hugepages=_hugepages(config),
        io=io,
    )


def memory_bytes(value: str) -> int | None:
    """Return the bytes of `limits.memory`, a share of the host's memory included; None for no limit."""
    if not value:
        return None
    if value.endswith("%"):
        return host_memory() * int(value[:-1]) // 100
    return parse_bytes(value)


def host_memory() -> int:
    """Return the host's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refused(config: Mapping[str, str]) -> dict[str, str]:
    """Return what this host can never apply: by key, why not."""
    why = apparmor.lacking(config.get("raw.apparmor", ""))
    return {"raw.apparmor": why} if why else {}


def rlimits(config: Mapping[str, str]) -> tuple[tuple[str, int, int], ...]:
    """Return `limits.kernel.*` as (name, soft, hard), -1 for unlimited."""
    prefix = "limits.kernel."
    found = []
    for key, value in config.items():
        if key.startswith(prefix) and value:
            soft, _, hard = value.partition(":")
            found.append((key.removeprefix(prefix), _rlimit(soft), _rlimit(hard or soft)))
    return tuple(found)


def _swappiness(priority: str) -> int | None:
    # As LXD has it: the highest priority is the kernel's default.
    return 70 - int(priority) if priority else None


def _hugepages(config: Mapping[str, str]) -> dict[str, int]:
    prefix = "limits.hugepages."
    return {key.removeprefix(prefix): parse_bytes(v) for key, v in config.items() if key.startswith(prefix) and v}


def _rlimit(text: str) -> int:
    return -1 if text == "unlimited" else int(text)


def _cpu_quota(allowance: str) -> tuple[int | None, int | None]:
    """Return (quota, period) in microseconds of a hard limit such as 25ms/100ms."""
    if "/" not in allowance:
        return None, None
    quota, period = (int(part.removesuffix("ms")) * 1000 for part in allowance.split("/"))
    return quota, period


def _cpu_weight(config: Mapping[str, str]) -> int | None:
    """Return the weight on cgroup v2's scale that a soft allowance and the priority come to; see LXD's ParseCPU."""
    allowance = config.get("limits.cpu.allowance", "")
    if not allowance.endswith("%") and not config.get("limits.cpu.priority"):
        return None
    shares = int(allowance[:-1]) * 10 + 24 if allowance.endswith("%") else _SHARES
    shares -= 10 - int(INSTANCE.value(config, "limits.cpu.priority"))
    return max(1, min(10000, round(shares * 100 / _SHARES)))
