"""What instances use, in the text format that Prometheus reads, under LXD's names.

See: LXD 5.0 doc/metrics.md; https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from pylxc.db.engine import Database
from pylxc.errors import NotFound
from pylxc.kernel import cgroup_stats, netinfo, procfs
from pylxc.kernel.cgroup_stats import Details
from pylxc.runtime.handle import Runtime
from pylxc.services.instances.expand import Record, load_all
from pylxc.services.instances.state import memory_limit
from pylxc.services.operations import Operations
from pylxc.services.warnings import Warnings

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]

_MEMORY = {
    "Active": "active",
    "Active_anon": "anonymous memory on the active list",
    "Active_file": "file-backed memory on the active list",
    "Cached": "cached",
    "Dirty": "memory waiting to be written back to the disk",
    "Inactive": "inactive",
    "Inactive_anon": "anonymous memory on the inactive list",
    "Inactive_file": "file-backed memory on the inactive list",
    "Mapped": "mapped",
    "MemAvailable": "available",
    "MemFree": "free",
    "MemTotal": "usable",
    "RSS": "anonymous and swap cache memory",
    "Shmem": "cached file system data that is backed by swap",
    "Swap": "used swap",
    "Unevictable": "unevictable",
    "Writeback": "memory queued for syncing to the disk",
}
_NETWORK = ("bytes", "drop", "errs", "packets")

# Name: type, help.
FAMILIES: dict[str, tuple[str, str]] = {
    "cpu_seconds_total": ("counter", "The total number of CPU time used in seconds."),
    "disk_read_bytes_total": ("counter", "The total number of bytes read."),
    "disk_reads_completed_total": ("counter", "The total number of completed reads."),
    "disk_written_bytes_total": ("counter", "The total number of bytes written."),
    "disk_writes_completed_total": ("counter", "The total number of completed writes."),
    "filesystem_avail_bytes": ("gauge", "The number of available space in bytes."),
    "filesystem_free_bytes": ("gauge", "The number of free space in bytes."),
    "filesystem_size_bytes": ("gauge", "The size of the file system in bytes."),
    **{f"memory_{name}_bytes": ("gauge", f"The amount of {what} in bytes.") for name, what in _MEMORY.items()},
    "memory_OOM_kills_total": ("counter", "The number of out of memory kills."),
    **{
        f"network_{way}_{what}_total": ("counter", f"The amount of {way}d {what} on a given interface.")
        for way in ("receive", "transmit")
        for what in _NETWORK
    },
    "procs_total": ("gauge", "The number of running processes."),
    "operations_total": ("gauge", "The number of running operations."),
    "warnings_total": ("gauge", "The number of active warnings."),
    "uptime_seconds": ("gauge", "The daemon uptime in seconds."),
}


class Metrics:
    """Metrics of instances and of the server; thread-safe."""

    def __init__(self, db: Database, runtime: Runtime, operations: Operations, warnings: Warnings) -> None:
        self._db = db
        self._runtime = runtime
        self._operations = operations
        self._warnings = warnings
        self._began = time.monotonic()

    def render(self, project: str | None) -> str:
        """Return the metrics of the instances of a project that run, of all projects when None; and the server's."""
        samples: dict[str, list[str]] = {name: [] for name in FAMILIES}
        for name, labels, value in (*self._instances(project), *self._server()):
            samples[name].append(_line(name, labels, value))
        return "".join(
            f"# HELP lxd_{name} {text}\n# TYPE lxd_{name} {kind}\n{''.join(samples[name])}"
            for name, (kind, text) in FAMILIES.items()
            if samples[name]
        )

    def _server(self) -> Iterator[Sample]:
        running = [each for each in self._operations.all(None) if not each.is_done]
        yield "operations_total", (), len(running)
        yield "warnings_total", (), len([each for each in self._warnings.list(None) if each["status"] == "new"])
        yield "uptime_seconds", (), int(time.monotonic() - self._began)

    def _instances(self, project: str | None) -> Iterator[Sample]:
        with self._db.reading() as session:
            records = load_all(session, project)
        running = {found.key: run for found in records if (run := self._runtime.get(found.key)) is not None}
        networks = netinfo.interfaces(run.pid for run in running.values())
        disks = _Disks()
        for found in records:
            if (run := running.get(found.key)) is None:
                continue
            labels = (("name", found.name), ("project", found.project), ("type", found.type))
            try:
                details = cgroup_stats.read(self._runtime.cgroup(found.key))
            except (NotFound, OSError):  # it has ended just now
                continue
            yield from _of_cpu_and_memory(found, labels, details)
            for device, io in details.disks.items():
                on = (("device", disks.name(device)), *labels)
                yield "disk_read_bytes_total", on, io.read_bytes
                yield "disk_reads_completed_total", on, io.reads
                yield "disk_written_bytes_total", on, io.written_bytes
                yield "disk_writes_completed_total", on, io.writes
            yield from disks.filesystem(run.rootfs, labels)
            for interface in networks.get(run.pid, []):
                yield from _of_interface(interface, labels)


class _Disks:
    """What devices and file systems are called; each is looked up once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._mounts: dict[int, procfs.MountInfo] = {}

    def name(self, numbers: str) -> str:
        """Return the name of a block device."""
        if numbers not in self._names:
            self._names[numbers] = os.path.basename(os.path.realpath(f"/sys/dev/block/{numbers}"))
        return self._names[numbers]

    def filesystem(self, rootfs: str, labels: Labels) -> Iterator[Sample]:
        """Yield the space of the file system that an instance's tree is on."""
        try:
            device = os.stat(rootfs).st_dev
            if device not in self._mounts:
                self._mounts[device] = procfs.mount_of(rootfs)
            space = os.statvfs(rootfs)
        except (OSError, LookupError):
            return
        mount = self._mounts[device]
        on = (("device", mount.source), ("fstype", mount.fstype), ("mountpoint", "/"), *labels)
        yield "filesystem_avail_bytes", on, space.f_bavail * space.f_frsize
        yield "filesystem_free_bytes", on, space.f_bfree * space.f_frsize
        yield "filesystem_size_bytes", on, space.f_blocks * space.f_frsize


def _of_cpu_and_memory(found: Record, labels: Labels, details: Details) -> Iterator[Sample]:
    for mode, seconds in details.cpu_seconds.items():
        yield "cpu_seconds_total", (("cpu", "0"), ("mode", mode), *labels), seconds
    total, used = memory_limit(found.expanded_config), details.usage.get("memory", 0)
    memory = details.memory | {"MemTotal": total, "MemFree": max(0, total - used)}
    memory["MemAvailable"] = min(total, memory["MemFree"] + memory.get("Cached", 0))
    if "swap" in details.usage:
        memory["Swap"] = details.usage["swap"]
    for name, count in memory.items():
        yield f"memory_{name}_bytes", labels, count
    yield "memory_OOM_kills_total", labels, details.oom_kills
    if "processes" in details.usage:
        yield "procs_total", labels, details.usage["processes"]


def _of_interface(interface: netinfo.Interface, labels: Labels) -> Iterator[Sample]:
    on = (("device", interface.name), *labels)
    counters = interface.stats
    for index, way in enumerate(("receive", "transmit")):
        for name, place in (("packets", 0), ("bytes", 2), ("errs", 4), ("drop", 6)):
            yield f"network_{way}_{name}_total", on, counters[place + index]


def _line(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"lxd_{name}{{{inner}}} {value}\n" if inner else f"lxd_{name} {value}\n"


def _escaped(text: str) -> str:
    # The guest chooses the names of its interfaces.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
