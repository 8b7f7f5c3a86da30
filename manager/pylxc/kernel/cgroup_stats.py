"""What a control group has used, in detail; the layouts' files read into the same words.

See: the kernel's admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pylxc.kernel import procfs
from pylxc.kernel.cgroup import Cgroup, HybridCgroup

_V2_MEMORY = {
    "Cached": "file",
    "Dirty": "file_dirty",
    "Mapped": "file_mapped",
    "RSS": "anon",
    "Shmem": "shmem",
    "Writeback": "file_writeback",
}
_V1_MEMORY = {
    "Cached": "total_cache",
    "Dirty": "total_dirty",
    "Mapped": "total_mapped_file",
    "RSS": "total_rss",
    "Shmem": "total_shmem",
    "Writeback": "total_writeback",
}
_LRU = {
    "Active_anon": "active_anon",
    "Active_file": "active_file",
    "Inactive_anon": "inactive_anon",
    "Inactive_file": "inactive_file",
    "Unevictable": "unevictable",
}


@dataclass(slots=True)
class DiskIo:
    """Bytes and operations of a block device."""

    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What a group has used.

    Attributes:
        cpu_seconds: by mode, `user` and `system`.
        memory: bytes, by the names of /proc/meminfo as far as there are any.
        usage: as `Cgroup.usage` has it.
        oom_kills: processes killed for want of memory.
        disks: by the numbers of the device ("254:0").
    """

    cpu_seconds: dict[str, float]
    memory: dict[str, int]
    usage: dict[str, int]
    oom_kills: int
    disks: dict[str, DiskIo] = field(default_factory=dict)


def read(group: Cgroup) -> Details:
    """Return what a group has used.

    Raises:
        OSError: it has gone.
    """
    cpu = _pairs(f"{group.path}/cpu.stat")
    is_v1 = isinstance(group, HybridCgroup)
    return Details(
        cpu_seconds={mode: cpu[f"{mode}_usec"] / 1e6 for mode in ("user", "system") if f"{mode}_usec" in cpu},
        memory=_memory(_pairs(f"{group.directory('memory')}/memory.stat"), is_v1=is_v1),
        usage=group.usage(),
        oom_kills=group.oom_kills(),
        disks=_v1_disks(group.directory("blkio")) if is_v1 else _v2_disks(group.directory("io")),
    )


def _memory(stat: dict[str, int], *, is_v1: bool) -> dict[str, int]:
    names = (_V1_MEMORY if is_v1 else _V2_MEMORY) | {n: f"total_{f}" if is_v1 else f for n, f in _LRU.items()}
    found = {name: stat[file] for name, file in names.items() if file in stat}
    for whole in ("Active", "Inactive"):
        found[whole] = found.get(f"{whole}_anon", 0) + found.get(f"{whole}_file", 0)
    return found


def _v2_disks(directory: str) -> dict[str, DiskIo]:
    found = {}
    for line in _text(f"{directory}/io.stat").splitlines():
        device, *words = line.split()
        values = dict(word.partition("=")[::2] for word in words)
        numbers = (int(values.get(name, 0)) for name in ("rbytes", "wbytes", "rios", "wios"))
        found[device] = DiskIo(*numbers)
    return found


def _v1_disks(directory: str) -> dict[str, DiskIo]:
    found: dict[str, DiskIo] = {}
    fields = {
        ("io_service_bytes", "Read"): "read_bytes",
        ("io_service_bytes", "Write"): "written_bytes",
        ("io_serviced", "Read"): "reads",
        ("io_serviced", "Write"): "writes",
    }
    for file in ("io_service_bytes", "io_serviced"):
        for line in _text(f"{directory}/blkio.throttle.{file}_recursive").splitlines():
            words = line.split()
            if len(words) == 3 and (field := fields.get((file, words[1]))):
                setattr(found.setdefault(words[0], DiskIo()), field, int(words[2]))
    return found


def _pairs(path: str) -> dict[str, int]:
    lines = (line.partition(" ") for line in _text(path).splitlines())
    return {name: int(value) for name, _, value in lines if value.isdecimal()}


def _text(path: str) -> str:
    try:
        return procfs.read(path)
    except FileNotFoundError:  # a controller that is not there
        return ""
