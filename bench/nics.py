"""Network devices: what attaching one takes, and what goes through, beside the same without a manager."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.server import Server
from tests.support.namespace import NetworkNamespace

_SECONDS = 2
_NAMES = ("net1", "net2")
_BRIDGE = "benchbr0"
_SUBNET = "10.98.0"

Paths = tuple[str, str, str, str]
"""Network namespaces of a host and of two guests on its bridge, and the address of the second one."""


def guests(server: Server) -> None:
    """Start two guests and wait until they have their addresses; make a bridge beside the manager's."""
    _run("ip", "-n", server.netns.name, "link", "add", _BRIDGE, "up", "type", "bridge")
    for name in _NAMES:
        server.run("launch", "busybox", name)
    deadline = time.monotonic() + 30
    while not all(_address(_state(server, name)) for name in _NAMES):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{server.name}: guests have no addresses")
        time.sleep(0.1)


def no_guests(server: Server) -> None:
    """Undo `guests`."""
    server.run("delete", "--force", *_NAMES)
    _run("ip", "-n", server.netns.name, "link", "delete", _BRIDGE)


def attach(server: Server, _run: int) -> dict[str, float]:
    """One more NIC on a bridge for a guest that runs."""
    nic = ("nictype=bridged", f"parent={_BRIDGE}", "name=more0")
    taken = server.time("config", "device", "add", _NAMES[0], "more", "nic", *nic)
    server.run("config", "device", "remove", _NAMES[0], "more")
    return {"attach a NIC": taken}


def traffic(server: Server, _run: int) -> dict[str, float]:
    """The time that iperf3 takes for a byte, as a multiple of what it takes over a bare bridge."""
    states = [_state(server, name) for name in _NAMES]
    first, second = (f"/proc/{state['pid']}/ns/net" for state in states)
    managed = _seconds_per_bit((server.netns.path, first, second, _address(states[1])))
    with _bare() as paths:
        bare = _seconds_per_bit(paths)
    return {
        f"traffic {what}, of bare veths'": managed[what] / bare[what] for what in ("between guests", "host to guest")
    }


@contextmanager
def _bare() -> Iterator[Paths]:
    """Make a bridge and two guests as a manager would, of nothing but namespaces and veth pairs."""
    tag = secrets.token_hex(3)
    host, *inside = namespaces = [NetworkNamespace(f"bare-{tag}{suffix}") for suffix in ("", "a", "b")]
    try:
        ip = ["ip", "-n", host.name]
        _run(*ip, "link", "add", "br0", "up", "type", "bridge")
        _run(*ip, "address", "add", f"{_SUBNET}.1/24", "dev", "br0")
        for number, guest in enumerate(inside, start=2):
            peer = ("peer", "name", "eth0", "netns", guest.name)
            _run(*ip, "link", "add", f"v{number}", "master", "br0", "up", "type", "veth", *peer)
            _run("ip", "-n", guest.name, "address", "add", f"{_SUBNET}.{number}/24", "dev", "eth0")
            _run("ip", "-n", guest.name, "link", "set", "eth0", "up")
        yield host.path, inside[0].path, inside[1].path, f"{_SUBNET}.3"
    finally:
        for namespace in namespaces:
            namespace.close()


def _seconds_per_bit(paths: Paths) -> dict[str, float]:
    host, first, second, address = paths
    return {
        "between guests": 1 / _bits_per_second(first, second, address),
        "host to guest": 1 / _bits_per_second(host, second, address),
    }


def _bits_per_second(source: str, target: str, address: str) -> float:
    """Return what iperf3 moves from one network namespace to an address in another one."""
    serve = ["nsenter", f"--net={target}", "--", "iperf3", "--server", "--one-off", "--bind", address, "--forceflush"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while "listening" not in (line := server.stdout.readline()):
            if not line:
                raise RuntimeError("iperf3 does not serve")
        ask = ["nsenter", f"--net={source}", "--", "iperf3", "--client", address, "--time", str(_SECONDS), "--json"]
        shown = json.loads(subprocess.run(ask, check=True, capture_output=True, text=True).stdout)
        server.stdout.read()
    return float(shown["end"]["sum_received"]["bits_per_second"])


def _state(server: Server, name: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(server.run("query", f"/1.0/instances/{name}/state"))
    return state


def _address(state: dict[str, Any]) -> str:
    found = (state["network"] or {}).get("eth0", {}).get("addresses", [])
    return next((str(each["address"]) for each in found if each["family"] == "inet"), "")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
