"""Memory, in all and by NUMA node; bytes."""

from __future__ import annotations

from typing import Any

from pylxc.services.inventory.sysfs import entries, read

_NODES = "/sys/devices/system/node"


def collect() -> dict[str, Any]:
    """Return the wire's ResourcesMemory."""
    facts = _meminfo(read("/proc/meminfo"))
    page = facts.get("Hugepagesize", 0)
    pages, free = facts.get("HugePages_Total", 0), facts.get("HugePages_Free", 0)
    available = facts.get("MemAvailable", facts.get("MemFree", 0))
    nodes = [name for name in entries(_NODES) if name.startswith("node") and name[4:].isdecimal()]
    return {
        "nodes": [_node(name, page) for name in sorted(nodes, key=lambda name: int(name[4:]))],
        "hugepages_total": pages * page,
        "hugepages_used": (pages - free) * page,
        "hugepages_size": page,
        "used": facts.get("MemTotal", 0) - available,
        "total": facts.get("MemTotal", 0),
    }


def _node(name: str, page: int) -> dict[str, Any]:
    # "Node 0 MemTotal:  123 kB": the same lines as /proc/meminfo behind the node's name
    text = "\n".join(line.partition(" ")[2].partition(" ")[2] for line in read(_NODES, name, "meminfo").splitlines())
    facts = _meminfo(text)
    cached = facts.get("FilePages", 0) + facts.get("SReclaimable", 0)
    pages, free = facts.get("HugePages_Total", 0), facts.get("HugePages_Free", 0)
    return {
        "numa_node": int(name[4:]),
        "hugepages_used": (pages - free) * page,
        "hugepages_total": pages * page,
        "used": max(0, facts.get("MemUsed", 0) - cached),
        "total": facts.get("MemTotal", 0),
    }


def _meminfo(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdecimal():
            found[key.strip()] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found
