"""What is measured, and how: every function takes one sample of each of its rows from one server."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import backups, files, growth, limits, many, nics, sources, volumes, wire
from bench.server import Samples, Server, pss_bytes
from tests.support.sockets import inside, listening, serving

# The budget is the most that pylxc may take of what LXD takes (DESIGN, section 7).
BUDGETS = {
    "launch, dir pool": 0.5,
    "start": 0.35,
    "stop --force": 0.3,
    "delete --force": 0.5,
    "exec true": 1.0,
    "1 GiB out of exec": 0.15,
    "config set": 1.0,
    "list, 100 instances": 1.0,
    "list, 100 that run": 1.0,
    "4 GiB through a proxy": 0.67,
    "memory per running container": 0.15,
    "first launch, loopback server": 0.5,
    "attach a NIC": 0.5,
    "limit memory, live": 0.5,
    "limit CPUs, live": 0.5,
    "autostart of 20": 0.35,
    "unpack an image, btrfs pool": 0.7,
    "launch, btrfs pool": 0.25,
    "snapshot, btrfs pool": 0.35,
    "copy, btrfs pool": 0.35,
    "restore, btrfs pool": 0.35,
    "delete, btrfs pool": 0.5,
    "export, dir pool": 0.6,
    "import, dir pool": 0.7,
    "copy, dir pool": 0.6,
    "snapshot, dir pool": 0.6,
    "publish, dir pool": 0.7,
    "list, 25 of 100 run": 1.0,
    "512 MiB file pushed": 0.5,
    "512 MiB file pulled": 0.5,
    "tree of 1,000 files pushed": 0.1,
    "tree of 1,000 files pulled": 0.1,
    **wire.BUDGETS,
}
# The most that pylxc may take whatever LXD takes: seconds, MiB of memory, or a multiple of what bare veth pairs take,
# or of what the same costs with fewer instances.
ABSOLUTE = {
    "image list, 2,000 products": 0.2,
    "memory while importing 2 GiB": 150.0,
    "memory of the daemon, 500 that run": 150.0,
    "list, 500 that run": 1.0,
    "traffic between guests, of bare veths'": 1 / 0.95,
    "traffic host to guest, of bare veths'": 1 / 0.95,
    "growth of launch, 5 to 500 instances": 1.3,
    "growth of snapshot, 5 to 500 instances": 1.3,
}

_PROXIED = 4 << 30
_PIECE = 64 << 20

HUNDRED = [f"many{number}" for number in range(100)]
TEN = [f"ten{number}" for number in range(10)]


@dataclass(frozen=True)
class Scenario:
    """A series of samples.

    Attributes:
        name: what `--only` picks.
        runs: how many samples; `--runs` overrides.
        sample: takes one sample of one server; the number of the run makes names unique.
        prepare: what a server needs once, before the first sample.
        finish: undoes `prepare`.
    """

    name: str
    runs: int
    sample: Callable[[Server, int], Samples]
    prepare: Callable[[Server], None] = lambda _: None
    finish: Callable[[Server], None] = lambda _: None


def boot(server: Server, instance: str, *, timeout_seconds: float = 90) -> None:
    """Wait until the guest has booted, so that its start-up does not disturb what is measured next.

    Raises:
        RuntimeError: it is not up in time.
    """
    deadline = time.monotonic() + timeout_seconds
    state = ""
    while time.monotonic() < deadline:
        command = [server.cli, "exec", instance, "--", "systemctl", "is-system-running"]
        state = subprocess.run(command, env=server.env, capture_output=True, text=True, check=False).stdout.strip()
        if state in ("running", "degraded"):
            return
        time.sleep(0.2)
    raise RuntimeError(f"{server.name}: {instance} is {state!r} after {timeout_seconds} s")


def lifecycle(server: Server, run: int) -> Samples:
    """A Debian 12 guest's life: launch, stop, start, delete while it runs."""
    name = f"life{run}"
    samples = {"launch, dir pool": server.time("launch", "debian", name)}
    boot(server, name)
    samples["stop --force"] = server.time("stop", "--force", name)
    samples["start"] = server.time("start", name)
    boot(server, name)
    samples["delete --force"] = server.time("delete", "--force", name)
    return samples


def exec_true(server: Server, _run: int) -> Samples:
    """The smallest command in a running guest."""
    return {"exec true": server.time("exec", "guest", "--", "true")}


def exec_gib(server: Server, _run: int) -> Samples:
    """1 GiB from a command in the guest through a pipe to a reader on the host."""
    begin = time.perf_counter()
    producer = subprocess.Popen(
        [server.cli, "exec", "guest", "--", "dd", "if=/dev/zero", "bs=1M", "count=1024", "status=none"],
        env=server.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    count = subprocess.run(["wc", "-c"], stdin=producer.stdout, capture_output=True, text=True, check=True).stdout
    if producer.wait() or int(count) != 1 << 30:
        raise RuntimeError(f"{server.name}: {count.strip()} bytes came out of exec, not 1 GiB")
    return {"1 GiB out of exec": time.perf_counter() - begin}


def config_set(server: Server, run: int) -> Samples:
    """One key of a running guest."""
    return {"config set": server.time("config", "set", "guest", f"user.bench={run}")}


def list_many(server: Server, _run: int) -> Samples:
    """The table of 100 instances."""
    return {"list, 100 instances": server.time("list")}


def list_some_running(server: Server, _run: int) -> Samples:
    """The same of which a quarter runs."""
    return {"list, 25 of 100 run": server.time("list")}


def list_running(server: Server, _run: int) -> Samples:
    """The same of instances that run, with their addresses."""
    return {"list, 100 that run": server.time("list")}


def memory(server: Server, _run: int) -> Samples:
    """What the manager's processes hold per running container, of ten that run, in MiB of proportional memory."""
    pids = [pid for name in TEN for pid in server.monitor_pids(name)]
    if len(pids) < len(TEN):
        raise RuntimeError(f"{server.name}: only {len(pids)} monitors found")
    return {"memory per running container": sum(map(pss_bytes, pids)) / len(TEN) / (1 << 20)}


def proxy(server: Server, _run: int) -> Samples:
    """4 GiB from a client on the host through a proxy device (tcp to tcp, no NAT) to a server in the guest."""
    pid = json.loads(server.run("query", "/1.0/instances/proxied/state"))["pid"]
    piece = os.memfd_create("piece")
    os.ftruncate(piece, _PIECE)
    counts: queue.Queue[int] = queue.Queue()
    sink = listening(inside(pid), ("127.0.0.1", 9001))
    with serving(sink, lambda connection: counts.put(_count(connection))), server.netns.entered():
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", 9000)) as client:
            for _ in range(_PROXIED // _PIECE):
                offset = 0
                while offset < _PIECE:
                    offset += os.sendfile(client.fileno(), piece, offset, _PIECE - offset)
        count = counts.get(timeout=60)
        seconds = time.perf_counter() - begin
    os.close(piece)
    if count != _PROXIED:
        raise RuntimeError(f"{server.name}: {count} bytes came through the proxy, not 4 GiB")
    return {"4 GiB through a proxy": seconds}


def _count(connection: socket.socket) -> int:
    """Take everything, without copying it, and return how much it was."""
    count = 0
    buffer = bytearray(1 << 20)
    while taken := connection.recv_into(buffer, len(buffer), socket.MSG_TRUNC):
        count += taken
    return count


def _guest(server: Server) -> None:
    server.run("launch", "debian", "guest")
    boot(server, "guest")


def _no_guest(server: Server) -> None:
    server.run("delete", "--force", "guest")


def _proxied(server: Server) -> None:
    server.run("launch", "busybox", "proxied")
    ends = ("listen=tcp:127.0.0.1:9000", "connect=tcp:127.0.0.1:9001")
    server.run("config", "device", "add", "proxied", "proxy", "proxy", *ends)


def _no_proxied(server: Server) -> None:
    server.run("delete", "--force", "proxied")


def _ten(server: Server) -> None:
    for name in TEN:
        server.run("launch", "busybox", name)


def _no_ten(server: Server) -> None:
    server.run("delete", "--force", *TEN)


def _hundred(server: Server) -> None:
    for name in HUNDRED:
        server.run("init", "busybox", name)


def _quarter_running(server: Server) -> None:
    _hundred(server)
    server.run("start", *HUNDRED[:25])


def _hundred_running(server: Server) -> None:
    for name in HUNDRED:
        server.run("launch", "busybox", name)


def _no_hundred(server: Server) -> None:
    server.run("delete", "--force", *HUNDRED)


def _guest_samples(server: Server, run: int) -> Samples:
    return {**exec_true(server, run), **config_set(server, run)}


SCENARIOS = (
    Scenario("lifecycle", 5, lifecycle),
    Scenario("btrfs", 5, volumes.life_on_btrfs),
    Scenario("backups", 5, backups.there_and_back, backups.prepare, backups.finish),
    Scenario("files", 3, files.large, files.prepare, files.finish),
    Scenario("tree", 3, files.tree, files.prepare_tree, files.finish),
    Scenario("wire", 7, wire.commands, wire.sources),
    Scenario("growth", 1, growth.crowd),
    Scenario("exec", 20, _guest_samples, _guest, _no_guest),
    Scenario("gib", 5, exec_gib, _guest, _no_guest),
    Scenario("proxy", 5, proxy, _proxied, _no_proxied),
    Scenario("memory", 3, memory, _ten, _no_ten),
    Scenario("list", 10, list_many, _hundred, _no_hundred),
    Scenario("list-some", 10, list_some_running, _quarter_running, _no_hundred),
    Scenario("list-running", 10, list_running, _hundred_running, _no_hundred),
    Scenario("limits", 20, limits.change, limits.guest, limits.no_guest),
    Scenario("autostart", 3, many.autostart, many.twenty, many.no_twenty),
    Scenario("many", 3, many.hundreds, many.launch_hundreds, many.no_hundreds),
    Scenario("nic", 10, nics.attach, nics.guests, nics.no_guests),
    Scenario("traffic", 5, nics.traffic, nics.guests, nics.no_guests),
    Scenario("sources", 5, sources.first_launch),
    Scenario("images", 10, sources.list_large, sources.look_once),
    Scenario("import", 2, sources.import_memory),
)


def settle() -> None:
    """Write out what the last sample left in the page cache, so that the next does not pay for it."""
    os.sync()
