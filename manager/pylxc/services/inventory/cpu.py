"""Processors: sockets, cores, threads, caches."""

from __future__ import annotations

import os
from typing import Any

from pylxc.services.inventory.sysfs import entries, id_list, number, read

_CPUS = "/sys/devices/system/cpu"


def collect() -> dict[str, Any]:
    """Return the wire's ResourcesCPU; frequencies in MHz, cache sizes in bytes."""
    facts = _cpuinfo()
    online = id_list(read(_CPUS, "online"))
    isolated = id_list(read(_CPUS, "isolated"))
    sockets: dict[int, dict[str, Any]] = {}
    total = 0
    for cpu in sorted(id_list(read(_CPUS, "present"))):
        path = f"{_CPUS}/cpu{cpu}"
        package = max(0, number(path, "topology", "physical_package_id"))
        socket = sockets.setdefault(package, _socket(path, package, facts.get(cpu, {})))
        core = _core(socket, path, facts.get(cpu, {}))
        core["threads"].append(
            {
                "id": cpu,
                "numa_node": _numa_node(path),
                "thread": len(core["threads"]),
                "online": cpu in online,
                "isolated": cpu in isolated,
            }
        )
        total += 1
    for socket in sockets.values():
        clocked = [core["frequency"] for core in socket["cores"] if core["frequency"]]
        if clocked:
            socket["frequency"] = sum(clocked) // len(clocked)
    return {"architecture": os.uname().machine, "sockets": list(sockets.values()), "total": total}


def _socket(path: str, package: int, facts: dict[str, str]) -> dict[str, Any]:
    socket: dict[str, Any] = {
        "name": facts.get("model name", ""),
        "vendor": facts.get("vendor_id", ""),
        "socket": package,
        "cache": _caches(path),
        "cores": [],
    }
    for key, file in (("frequency_minimum", "cpuinfo_min_freq"), ("frequency_turbo", "cpuinfo_max_freq")):
        if kilohertz := number(path, "cpufreq", file):
            socket[key] = kilohertz // 1000
    return socket


def _core(socket: dict[str, Any], path: str, facts: dict[str, str]) -> dict[str, Any]:
    identity = (max(0, number(path, "topology", "core_id")), max(0, number(path, "topology", "die_id")))
    for core in socket["cores"]:
        if (core["core"], core["die"]) == identity:
            found: dict[str, Any] = core
            return found
    frequency = number(path, "cpufreq", "scaling_cur_freq") // 1000 or int(float(facts.get("cpu MHz", "0") or 0))
    core = {"core": identity[0], "die": identity[1], "threads": [], "frequency": frequency}
    socket["cores"].append(core)
    return core


def _caches(path: str) -> list[dict[str, Any]]:
    caches = []
    for index in (name for name in entries(path, "cache") if name.startswith("index")):
        cache = f"{path}/cache/{index}"
        size = read(cache, "size")
        kilobytes = int(size.removesuffix("K")) if size.removesuffix("K").isdecimal() else 0
        caches.append({"level": number(cache, "level"), "type": read(cache, "type"), "size": kilobytes * 1024})
    return caches


def _numa_node(path: str) -> int:
    nodes = [name for name in entries(path) if name.startswith("node") and name[4:].isdecimal()]
    return int(nodes[0][4:]) if nodes else 0


def _cpuinfo() -> dict[int, dict[str, str]]:
    """Return /proc/cpuinfo by processor number."""
    found: dict[int, dict[str, str]] = {}
    for block in read("/proc/cpuinfo").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        if facts.get("processor", "").isdecimal():
            found[int(facts["processor"])] = facts
    return found
