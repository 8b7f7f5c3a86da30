"""The files of both layouts come to the same words."""

from __future__ import annotations

from pathlib import Path

from pylxc.kernel import cgroup_stats
from pylxc.kernel.cgroup import HybridCgroup, UnifiedCgroup
from pylxc.kernel.cgroup_stats import DiskIo

CPU = "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n"


def test_unified(tmp_path: Path) -> None:
    group = UnifiedCgroup(str(tmp_path), "c1")
    files = {
        "cpu.stat": CPU,
        "memory.stat": "anon 1\nfile 2\nactive_anon 3\nactive_file 4\nfile_dirty 5\n",
        "memory.current": "7\n",
        "memory.events": "low 0\noom 2\noom_kill 1\n",
        "io.stat": "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n",
    }
    Path(group.path).mkdir(parents=True)
    for name, content in files.items():
        Path(group.path, name).write_text(content)
    found = cgroup_stats.read(group)
    assert found.cpu_seconds == {"user": 2.0, "system": 1.0}
    assert (found.memory["RSS"], found.memory["Cached"], found.memory["Active"], found.memory["Dirty"]) == (1, 2, 7, 5)
    assert (found.usage["memory"], found.oom_kills) == (7, 1)
    assert found.disks["254:0"] == DiskIo(1, 2, 3, 4)


def test_hybrid(tmp_path: Path) -> None:
    group = HybridCgroup(str(tmp_path / "unified"), "c1", {name: str(tmp_path / name) for name in ("memory", "blkio")})
    files = {
        "unified/pylxc/c1/cpu.stat": CPU,
        "memory/pylxc/c1/memory.stat": "rss 9\ntotal_rss 1\ntotal_cache 2\ntotal_inactive_file 4\n",
        "memory/pylxc/c1/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "blkio/pylxc/c1/blkio.throttle.io_service_bytes_recursive": "254:0 Read 1\n254:0 Write 2\nTotal 3\n",
        "blkio/pylxc/c1/blkio.throttle.io_serviced_recursive": "254:0 Read 3\n254:0 Write 4\n254:0 Sync 4\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = cgroup_stats.read(group)
    assert (found.memory["RSS"], found.memory["Cached"], found.memory["Inactive"]) == (1, 2, 4)
    assert found.oom_kills == 3
    assert found.disks == {"254:0": DiskIo(1, 2, 3, 4)}
