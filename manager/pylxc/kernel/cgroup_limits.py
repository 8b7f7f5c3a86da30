"""Which files of a control group hold which limit, in either layout: plain data, which `kernel.cgroup` writes.

See: the kernel's admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    LimitValues = Mapping[str, Any]
    """The fields of `runtime.spec.Limits` by name."""

HUGEPAGES = ("64KB", "1MB", "2MB", "1GB")

NONE: LimitValues = {
    **dict.fromkeys(("memory", "memory_soft", "swap", "swappiness", "processes")),
    **dict.fromkeys(("cpus", "cpu_quota", "cpu_period", "cpu_weight", "io_weight")),
    "hugepages": {},
    "io": (),
}
"""No limit at all."""

DISK_LIMITS = "limits.read and limits.write of disks"
"""What asks for limits of devices, in words."""

_V1_RATES = {
    "read_bytes": "blkio.throttle.read_bps_device",
    "write_bytes": "blkio.throttle.write_bps_device",
    "read_iops": "blkio.throttle.read_iops_device",
    "write_iops": "blkio.throttle.write_iops_device",
}
_V2_RATES = {"read_bytes": "rbps", "write_bytes": "wbps", "read_iops": "riops", "write_iops": "wiops"}


class Setting:
    """What is to be written for one limit.

    Attributes:
        key: the configuration key that a limit comes from.
        controller: whose files these are.
        files: those that kernels may have for it; each that is there is written, and one must be.
        text: the value.
        is_limit: False when it lifts a limit, for which nothing needs to be there.
    """

    __slots__ = ("controller", "files", "is_limit", "key", "text")

    def __init__(self, key: str, controller: str, files: tuple[str, ...], value: object, unlimited: str) -> None:
        """With the value of the limit, or None and what stands for no limit."""
        self.key = key
        self.controller = controller
        self.files = files
        self.is_limit = value is not None
        self.text = str(value) if value is not None else unlimited


def unified(limits: LimitValues, throttled: Mapping[str, str]) -> Iterator[Setting]:
    """Yield what is to be written under cgroup v2.

    Args:
        limits: all of them; what is None is lifted.
        throttled: what `throttle_files(unified=True)` hold now.
    """
    quota, period = limits["cpu_quota"], limits["cpu_period"] or 100000
    yield Setting("limits.memory", "memory", ("memory.max",), limits["memory"], "max")
    yield Setting("limits.memory.enforce", "memory", ("memory.low",), limits["memory_soft"], "0")
    yield Setting("limits.memory.swap", "memory", ("memory.swap.max",), limits["swap"], "max")
    # There is no such file: the kernel has given it up.
    yield Setting("limits.memory.swap.priority", "memory", ("memory.swappiness",), limits["swappiness"], "")
    yield Setting("limits.processes", "pids", ("pids.max",), limits["processes"], "max")
    yield Setting("limits.cpu", "cpuset", ("cpuset.cpus",), limits["cpus"], "\n")
    slices = None if quota is None else f"{quota} {period}"
    yield Setting("limits.cpu.allowance", "cpu", ("cpu.max",), slices, "max 100000")
    yield Setting("limits.cpu.priority", "cpu", ("cpu.weight",), limits["cpu_weight"], "100")
    yield Setting("limits.disk.priority", "io", ("io.weight", "io.bfq.weight"), limits["io_weight"], "100")
    yield from hugepages(limits, "hugetlb.{}.max", "max")
    for each in limits["io"]:
        rates = " ".join(f"{name}={each[field] or 'max'}" for field, name in _V2_RATES.items())
        yield Setting(DISK_LIMITS, "io", ("io.max",), f"{each['device']} {rates}", "")
    for device in _devices(throttled["io.max"]) - {each["device"] for each in limits["io"]}:
        lifted = " ".join(f"{name}=max" for name in _V2_RATES.values())
        yield Setting(DISK_LIMITS, "io", ("io.max",), None, f"{device} {lifted}")


def hybrid(limits: LimitValues, throttled: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[Setting]:
    """Yield what is to be written into the groups of v1 controllers, but for huge pages.

    Args:
        limits: all of them; what is None is lifted.
        throttled: what `throttle_files(unified=False)` hold now.
        defaults: `cpus` and `swappiness` of a group without limits.
    """
    memory, swap = limits["memory"], limits["swap"]
    both = memory + swap if memory is not None and swap is not None else None
    # memory <= memory+swap must hold after every single write.
    yield Setting("limits.memory.swap", "memory", ("memory.memsw.limit_in_bytes",), None, "-1")
    yield Setting("limits.memory", "memory", ("memory.limit_in_bytes",), memory, "-1")
    if both is not None:
        yield Setting("limits.memory.swap", "memory", ("memory.memsw.limit_in_bytes",), both, "-1")
    soft = limits["memory_soft"]
    yield Setting("limits.memory.enforce", "memory", ("memory.soft_limit_in_bytes",), soft, "-1")
    swappiness = 0 if swap == 0 else limits["swappiness"]
    yield Setting("limits.memory.swap.priority", "memory", ("memory.swappiness",), swappiness, defaults["swappiness"])
    yield Setting("limits.processes", "pids", ("pids.max",), limits["processes"], "max")
    yield Setting("limits.cpu", "cpuset", ("cpuset.cpus",), limits["cpus"], defaults["cpus"])
    if limits["cpu_quota"] is not None:
        period = limits["cpu_period"] or 100000
        yield Setting("limits.cpu.allowance", "cpu", ("cpu.cfs_period_us",), period, "100000")
    yield Setting("limits.cpu.allowance", "cpu", ("cpu.cfs_quota_us",), limits["cpu_quota"], "-1")
    weight = limits["cpu_weight"]
    shares = None if weight is None else max(2, weight * 1024 // 100)
    yield Setting("limits.cpu.priority", "cpu", ("cpu.shares",), shares, "1024")
    io_weight = limits["io_weight"]
    blkio = None if io_weight is None else min(1000, max(10, io_weight * 5))
    yield Setting("limits.disk.priority", "blkio", ("blkio.weight", "blkio.bfq.weight"), blkio, "500")
    wanted = {each["device"] for each in limits["io"]}
    for field, file in _V1_RATES.items():
        for each in limits["io"]:
            rate = None if each[field] is None else f"{each['device']} {each[field]}"
            yield Setting(DISK_LIMITS, "blkio", (file,), rate, f"{each['device']} 0")
        for device in _devices(throttled[file]) - wanted:
            yield Setting(DISK_LIMITS, "blkio", (file,), None, f"{device} 0")


def throttle_files(*, unified: bool) -> tuple[str, ...]:
    """Return the files that hold the limits of devices, a line for each device."""
    return ("io.max",) if unified else tuple(_V1_RATES.values())


def hugepages(limits: LimitValues, file: str, unlimited: str) -> Iterator[Setting]:
    """Yield what is to be written for huge pages; `file` is the files' name with {} for the size of a page."""
    for size in HUGEPAGES:
        value = limits["hugepages"].get(size)
        yield Setting(f"limits.hugepages.{size}", "hugetlb", (file.format(size),), value, unlimited)


def _devices(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if line}
