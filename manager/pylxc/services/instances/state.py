"""What running instances use, and what their network looks like."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from pylxc.errors import NotFound, PylxcError
from pylxc.kernel import netinfo
from pylxc.runtime.handle import Running, Runtime
from pylxc.services.instances import limits
from pylxc.services.instances.expand import Record, root_disk
from pylxc.services.instances.render import STATUS_CODES
from pylxc.services.storage.service import StoragePools
from pylxc.wire.instances import InstanceState, InstanceStateDisk, InstanceStateNetwork

_TYPES = (
    (netinfo.IFF_LOOPBACK, "loopback"),
    (netinfo.IFF_POINTOPOINT, "point-to-point"),
    (netinfo.IFF_BROADCAST, "broadcast"),
)


class States:
    """Reads the state of instances; thread-safe."""

    def __init__(self, runtime: Runtime, storage: StoragePools) -> None:
        self._runtime = runtime
        self._storage = storage

    def read(self, records: Iterable[Record], running: Mapping[str, Running]) -> dict[str, InstanceState]:
        """Return states by instance key.

        Args:
            records: the instances.
            running: those that run, by key; the others are stopped.
        """
        networks = netinfo.interfaces(run.pid for run in running.values())
        unaccounted: set[str] = set()
        return {found.key: self._state(found, running.get(found.key), networks, unaccounted) for found in records}

    def status(self, found: Record, run: Running | None) -> str:
        """Return Running, Frozen, Stopped, or Error for one whose storage pool cannot be used; `run` is what runs."""
        if run:
            return run.status
        return "Stopped" if self._storage.is_available(found.pool) else "Error"

    def _state(
        self,
        found: Record,
        run: Running | None,
        networks: Mapping[int, list[netinfo.Interface]],
        unaccounted: set[str],
    ) -> InstanceState:
        status = self.status(found, run)
        state: InstanceState = {
            "status": status,
            "status_code": STATUS_CODES[status],
            "disk": self._disks(found, unaccounted),
            "memory": {"usage": 0, "usage_peak": 0, "swap_usage": 0, "swap_usage_peak": 0, "total": 0},
            "network": None,
            "pid": run.pid if run else 0,
            "processes": 0,
            "cpu": {"usage": 0},
        }
        if run is None:
            return state
        try:
            stats = self._runtime.stats(found.key)
        except (NotFound, OSError):  # it ended just now
            return state
        state["processes"] = stats.processes if stats.processes is not None else -1
        state["cpu"] = {"usage": stats.cpu_ns if stats.cpu_ns is not None else -1}
        state["memory"] = {
            "usage": stats.memory or 0,
            "usage_peak": stats.memory_peak or 0,
            "swap_usage": stats.swap or 0,
            "swap_usage_peak": stats.swap_peak or 0,
            "total": memory_limit(found.expanded_config),
        }
        state["network"] = {interface.name: _render(interface) for interface in networks.get(run.pid, [])}
        return state

    def _disks(self, found: Record, unaccounted: set[str]) -> dict[str, InstanceStateDisk]:
        """Return what the root disk takes; a pool without accounts is noted in `unaccounted` and not asked again."""
        try:
            device, root = root_disk(found.expanded_devices)
            if root["pool"] in unaccounted:
                return {}
            usage = self._storage.volumes.usage(root["pool"], found.project, found.name)
        except PylxcError:
            return {}
        if usage is None:
            unaccounted.add(root["pool"])
            return {}
        used, most = usage
        return {device: {"usage": used, "total": most}}


def memory_limit(config: Mapping[str, str]) -> int:
    """Return the bytes of memory that an instance of this expanded configuration has at most: all of the host's."""
    host = limits.host_memory()
    return min(limits.memory_bytes(config.get("limits.memory", "")) or host, host)


def _render(interface: netinfo.Interface) -> InstanceStateNetwork:
    counters = interface.stats
    return {
        "addresses": [
            {"family": a.family, "address": a.address, "netmask": str(a.prefix), "scope": a.scope}
            for a in interface.addresses
        ],
        "counters": {
            "bytes_received": counters[2],
            "bytes_sent": counters[3],
            "packets_received": counters[0],
            "packets_sent": counters[1],
            "errors_received": counters[4],
            "errors_sent": counters[5],
            "packets_dropped_outbound": counters[7],
            "packets_dropped_inbound": counters[6],
        },
        "hwaddr": interface.hwaddr if not interface.flags & netinfo.IFF_LOOPBACK else "",
        "host_name": _host_name(interface),
        "mtu": interface.mtu,
        "state": "up" if interface.flags & netinfo.IFF_UP else "down",
        "type": next((name for flag, name in _TYPES if interface.flags & flag), "unknown"),
    }


def _host_name(interface: netinfo.Interface) -> str:
    """Return the name of a veth's end on the host."""
    try:
        return socket.if_indextoname(interface.peer) if interface.peer else ""
    except OSError:  # it went away just now
        return ""
