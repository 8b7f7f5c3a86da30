"""GET /1.0/metrics against what guests have done."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, UnixConnection, unique

Labels = dict[str, str]


@pytest.fixture(scope="module", autouse=True)
def pool(module_daemon: Daemon) -> None:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})


@pytest.fixture
def guest(daemon: Daemon, busybox: str) -> Iterator[str]:
    """Return the name of a running guest with 64 MiB of memory and a network device."""
    name = unique("c")
    body = {"name": name, "source": {"type": "image", "alias": busybox}, "config": {"limits.memory": "64MiB"}}
    devices = {"eth0": {"type": "nic", "nictype": "p2p", "name": "eth0"}}
    daemon.request("POST", "/1.0/instances", {**body, "devices": devices, "start": True})
    yield name
    daemon.delete_all()


def metrics(daemon: Daemon, query: str = "") -> dict[str, list[tuple[Labels, float]]]:
    """Return the samples by name; whatever is no line of the format is a failure."""
    connection = UnixConnection(f"{daemon.dir}/unix.socket", 30)
    connection.request("GET", f"/1.0/metrics{query}")
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type", "").partition(";")[0]) == (200, "text/plain")
    found: dict[str, list[tuple[Labels, float]]] = {}
    described = ""
    for line in response.read().decode().splitlines():
        if line.startswith("#"):
            described = line.split()[2]
            continue
        parsed = re.fullmatch(r'(\w+)(?:\{((?:\w+="[^"\\]*",?)*)\})? ([0-9.e+-]+)', line)
        assert parsed, line
        assert parsed[1] == described
        found.setdefault(parsed[1], []).append(
            (dict(re.findall(r'(\w+)="([^"]*)"', parsed[2] or "")), float(parsed[3]))
        )
    connection.close()
    return found


def one(found: dict[str, list[tuple[Labels, float]]], family: str, /, **labels: str) -> float:
    ((_, value),) = [sample for sample in found[family] if labels.items() <= sample[0].items()]
    return value


def test_what_a_guest_uses(daemon: Daemon, guest: str) -> None:
    before = metrics(daemon)
    script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/f bs=1M count=3 conv=fsync"
    daemon.command("exec", guest, "--", "sh", "-c", script)
    found = metrics(daemon)
    labels = {"name": guest, "project": "default", "type": "container"}
    cpu = {**labels, "cpu": "0", "mode": "user"}
    assert one(found, "lxd_cpu_seconds_total", **cpu) > one(before, "lxd_cpu_seconds_total", **cpu)
    assert one(found, "lxd_memory_MemTotal_bytes", **labels) == 64 << 20
    assert 0 < one(found, "lxd_memory_MemFree_bytes", **labels) < 64 << 20
    assert one(found, "lxd_memory_Cached_bytes", **labels) >= 3 << 20
    assert one(found, "lxd_memory_OOM_kills_total", **labels) == 0
    assert one(found, "lxd_procs_total", **labels) >= 1
    assert one(found, "lxd_network_receive_bytes_total", **labels, device="lo") == 0
    assert one(found, "lxd_network_transmit_packets_total", **labels, device="eth0") >= 0
    assert one(found, "lxd_filesystem_size_bytes", **labels, mountpoint="/") > 1 << 30
    assert sum(value for each, value in found["lxd_disk_read_bytes_total"] if each["name"] == guest) >= 0
    for family in ("lxd_operations_total", "lxd_warnings_total", "lxd_uptime_seconds"):
        assert one(found, family) >= 0


def test_of_one_project(daemon: Daemon, guest: str) -> None:
    assert one(metrics(daemon, "?project=default"), "lxd_procs_total", name=guest) >= 1
    daemon.command("project", "create", "blue")
    assert "lxd_procs_total" not in metrics(daemon, "?project=blue")
    daemon.command("project", "delete", "blue")
    daemon.command("stop", "--force", guest)
    assert "lxd_procs_total" not in metrics(daemon)
