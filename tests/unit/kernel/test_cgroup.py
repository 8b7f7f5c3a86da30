"""What is written where, on directories that look like the two layouts."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from pylxc.kernel.cgroup import ENTRY_LEAF, HybridCgroup, UnifiedCgroup, open_for_entry
from pylxc.runtime.spec import IoLimit, Limits

V2 = (
    *("memory.max", "memory.low", "memory.swap.max", "pids.max", "cpuset.cpus", "cpu.max", "cpu.weight", "io.weight"),
    *("io.max", "hugetlb.2MB.max"),
)
V1 = {
    "memory": (
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.swappiness",
    ),
    "pids": ("pids.max",),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"),
    "cpuset": ("cpuset.cpus",),
    "blkio": (
        "blkio.weight",
        *(f"blkio.throttle.{way}_{unit}_device" for way in ("read", "write") for unit in ("bps", "iops")),
    ),
}
LIMITS = Limits(
    memory=1 << 28,
    swap=1 << 20,
    processes=9,
    cpus="0-1",
    cpu_quota=5000,
    cpu_period=20000,
    cpu_weight=50,
    io_weight=40,
    swappiness=65,
    hugepages={"2MB": 4 << 20},
    io=(IoLimit(device="8:0", read_bytes=1000, write_iops=5),),
)


def unified(tmp_path: Path) -> UnifiedCgroup:
    """Return a v2 group of plain files."""
    group = UnifiedCgroup(str(tmp_path), "c1")
    Path(group.path).mkdir(parents=True)
    for name in V2:
        Path(group.path, name).write_text("")
    return group


def hybrid(tmp_path: Path) -> HybridCgroup:
    """Return a hybrid group of plain files."""
    group = HybridCgroup(str(tmp_path / "unified"), "c1", {name: str(tmp_path / name) for name in V1})
    for controller, names in V1.items():
        directory = tmp_path / controller / "pylxc/c1"
        directory.mkdir(parents=True)
        for name in names:
            (directory / name).write_text("")
    (tmp_path / "cpuset/pylxc/cpuset.cpus").write_text("0-3\n")
    return group


def written(directory: Path | str) -> dict[str, str]:
    """Return the content of the files of a group."""
    return {path.name: path.read_text() for path in Path(directory).iterdir()}


def test_limits_on_a_unified_host(tmp_path: Path) -> None:
    group = unified(tmp_path)
    lacking = group.set_limits(asdict(LIMITS))
    assert lacking.keys() == {"limits.memory.swap.priority"}
    assert written(group.path) == {
        "memory.max": "268435456",
        "memory.low": "0",
        "memory.swap.max": "1048576",
        "pids.max": "9",
        "cpuset.cpus": "0-1",
        "cpu.max": "5000 20000",
        "cpu.weight": "50",
        "io.weight": "40",
        "io.max": "8:0 rbps=1000 wbps=max riops=max wiops=5",
        "hugetlb.2MB.max": "4194304",
    }


def test_limits_on_a_hybrid_host(tmp_path: Path) -> None:
    group = hybrid(tmp_path)
    group.set_limits(asdict(LIMITS))
    assert {k: v for path in group.v1_paths for k, v in written(path).items()} == {
        "memory.limit_in_bytes": "268435456",
        "memory.memsw.limit_in_bytes": "269484032",
        "memory.soft_limit_in_bytes": "-1",
        "pids.max": "9",
        "cpu.cfs_quota_us": "5000",
        "cpu.cfs_period_us": "20000",
        "cpu.shares": "512",
        "cpuset.cpus": "0-1",
        "blkio.weight": "200",
        "blkio.throttle.read_bps_device": "8:0 1000",
        "blkio.throttle.write_bps_device": "8:0 0",
        "blkio.throttle.read_iops_device": "8:0 0",
        "blkio.throttle.write_iops_device": "8:0 5",
        "memory.swappiness": "65",
    }


def test_who_enters_goes_into_a_leaf_where_the_group_may_have_no_process(tmp_path: Path) -> None:
    control = tmp_path / "cgroup.subtree_control"
    control.write_text("")
    fd = open_for_entry(str(tmp_path))
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path))
    os.close(fd)
    control.write_text("cpu memory pids\n")
    leaf = tmp_path / ENTRY_LEAF
    leaf.mkdir()
    fd = open_for_entry(str(tmp_path))
    assert os.path.samestat(os.fstat(fd), os.stat(leaf))
    os.close(fd)


def test_what_a_host_does_not_have_is_named(tmp_path: Path) -> None:
    group = unified(tmp_path)
    for name in ("pids.max", "io.weight"):
        Path(group.path, name).unlink()
    Path(group.path, "cgroup.controllers").write_text("memory io\n")
    assert group.set_limits(asdict(Limits())) == {}
    assert group.set_limits(asdict(Limits(processes=5, io_weight=5))) == {
        "limits.processes": "there is no cgroup controller 'pids'",
        "limits.disk.priority": "the cgroup controller 'io' has no io.weight",
    }


def test_limits_of_devices_that_are_not_wanted_any_more_are_lifted(tmp_path: Path) -> None:
    group = unified(tmp_path)
    Path(group.path, "io.max").write_text("8:0 rbps=1000 wbps=max riops=max wiops=max\n")
    group.set_limits(asdict(Limits()))
    assert written(group.path)["io.max"].startswith("8:0 rbps=max wbps=max riops=max wiops=max")
    older = hybrid(tmp_path / "older")
    Path(older.v1_paths[-1], "blkio.throttle.read_bps_device").write_text("8:0 1000\n8:16 5\n")
    older.set_limits(asdict(Limits(io=(IoLimit(device="8:0", read_bytes=7),))))
    assert written(older.v1_paths[-1])["blkio.throttle.read_bps_device"].startswith("8:16 0")


def test_groups_deeper_than_a_path_may_be_long_are_removed(tmp_path: Path) -> None:
    group = unified(tmp_path)
    for name in V2:
        Path(group.path, name).unlink()  # in kernfs they go with their directory
    here = os.open(group.path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        os.mkdir("beside", dir_fd=here)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    group.remove()
    assert not os.path.exists(group.path)
