"""Many guests: how soon those that start with the daemon run, and what hundreds cost."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

from bench.server import Samples, Server, pss_bytes

TWENTY = [f"boot{number}" for number in range(20)]
HUNDREDS = [f"hundreds{number}" for number in range(500)]
_DEADLINE_SECONDS = 300.0


def autostart(server: Server, _run: int) -> Samples:
    """From the start of the daemon, with none of the containers there, until all of them run."""
    server.stop()
    begin = time.perf_counter()
    server.start()
    while time.perf_counter() - begin < _DEADLINE_SECONDS:
        status = {found["name"]: found["status"] for found in server.get("/1.0/instances?recursion=1")}
        if all(status[name] == "Running" for name in TWENTY):
            return {"autostart of 20": time.perf_counter() - begin}
        time.sleep(0.05)
    raise RuntimeError(f"{server.name}: not all of the instances run after {_DEADLINE_SECONDS} s")


def twenty(server: Server) -> None:
    """Make the instances that start with the daemon."""
    for name in TWENTY:
        server.run("launch", "busybox", name, "-c", "boot.autostart=true", "-c", "boot.host_shutdown_timeout=2")


def no_twenty(server: Server) -> None:
    """Delete them."""
    server.run("delete", "--force", *TWENTY)


def hundreds(server: Server, _run: int) -> Samples:
    """What a daemon with hundreds of running containers holds, and how long it takes to list them; pylxc only."""
    if server.name != "pylxc":
        return {}
    seconds = server.time("list")
    pid = json.loads(server.run("query", "/1.0"))["environment"]["server_pid"]
    return {"list, 500 that run": seconds, "memory of the daemon, 500 that run": pss_bytes(pid) / (1 << 20)}


def launch_hundreds(server: Server) -> None:
    """Launch them, a few at a time; LXD would take more than ten minutes for it, and its figure is no budget."""
    if server.name == "pylxc":
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: server.run("launch", "busybox", name), HUNDREDS))


def no_hundreds(server: Server) -> None:
    """Delete them."""
    if server.name == "pylxc":
        server.run("delete", "--force", *HUNDREDS)
