"""Waiting for a guest: its network, its ports, its boot; with a time limit, by the command and by launch."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.daemon import POOL_AND_BRIDGE, Daemon, UnixConnection, unique
from tests.support.sockets import inside, listening
from tests.support.wait import until

TIMED_OUT = 124


@pytest.fixture(scope="module")
def networked(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    """Return a daemon with a network, and the image busybox."""
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_AND_BRIDGE})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture
def guest(networked: Daemon) -> Iterator[str]:
    """Return the name of a stopped container."""
    name = unique("w")
    networked.command("init", "busybox", name)
    yield name
    networked.command("delete", "--force", name, check=False)


def state(daemon: Daemon, name: str) -> dict[str, object]:
    found: dict[str, object] = daemon.request("GET", f"/1.0/instances/{name}/state")
    return found


def pid(daemon: Daemon, name: str) -> int:
    number = state(daemon, name)["pid"]
    assert isinstance(number, int)
    return number


class Waiting:
    """A `pylxc wait` under way."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        self.process = subprocess.Popen(
            daemon.command_line("wait", *words),
            env=daemon.env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.daemon = daemon

    def begun(self) -> Waiting:
        """Return once the server waits."""
        deadline = time.monotonic() + 20
        while not any(op["description"] == "Waiting for instance" for op in self.operations()):
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.end()
            time.sleep(0.02)
        return self

    def operations(self) -> list[dict[str, str]]:
        return list(self.daemon.request("GET", "/1.0/operations?recursion=1").get("running", []))

    def end(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err


def test_network_and_addresses(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    networked.command("wait", guest, "network", "ipv4", "ip")
    addresses = json.loads(networked.command("list", guest, "-f", "json").stdout)[0]["state"]["network"]["eth0"]
    assert any(a["family"] == "inet" for a in addresses["addresses"])
    routes = networked.command("exec", guest, "--", "ip", "route").stdout
    assert "default" in routes


def test_a_port_is_waited_for_and_found_on_any_address(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    for kind, condition in ((socket.SOCK_STREAM, "port:2222"), (socket.SOCK_DGRAM, "port:53/udp")):
        waiting = Waiting(networked, guest, condition).begun()
        with inside(pid(networked, guest), kind=kind) as server:
            port = int(condition.split(":")[1].split("/")[0])
            if kind == socket.SOCK_STREAM:
                listening(server, ("127.0.0.1", port))
            else:
                server.bind(("0.0.0.0", port))
            assert waiting.end() == (0, "")
    with inside(pid(networked, guest), socket.AF_INET6) as server:
        listening(server, ("::", 2223))
        networked.command("wait", guest, "port:2223")


def test_exec_and_boot_of_a_guest_that_says_nothing(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    networked.command("wait", guest, "exec", "boot", "running")


def test_running_and_stopped_are_events(networked: Daemon, guest: str) -> None:
    waiting = Waiting(networked, guest, "running").begun()
    networked.command("start", guest)
    assert waiting.end() == (0, "")
    waiting = Waiting(networked, guest, "stopped").begun()
    networked.command("exec", guest, "--", "poweroff", check=False)
    assert waiting.end() == (0, "")
    assert state(networked, guest)["status"] == "Stopped"


def test_time_is_limited(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    begin = time.monotonic()
    result = networked.command("wait", guest, "port:4", "--timeout", "1", check=False)
    assert 1 <= time.monotonic() - begin < 10
    complaint = f"Error: Instance {guest} has nothing that listens on tcp port 4 after 1 s\n"
    assert (result.returncode, result.stderr) == (TIMED_OUT, complaint)
    result = networked.command("wait", guest, "stopped", "--timeout", "0", check=False)
    assert (result.returncode, result.stderr) == (TIMED_OUT, f"Error: Instance {guest} is running after 0 s\n")


def test_what_cannot_come_true_is_not_waited_for(networked: Daemon, guest: str) -> None:
    def complaint(*words: str) -> str:
        result = networked.command("wait", *words, check=False)
        assert result.returncode == 1
        return result.stderr

    assert complaint(guest, "network") == f"Error: Instance {guest} is not running\n"
    assert complaint("no-such", "network") == "Error: Instance not found\n"
    for condition in ("breakfast", "port:", "port:0", "port:70000", "port:22/sctp"):
        assert f"Unknown condition '{condition}'" in complaint(guest, condition)
    networked.command("start", guest)
    waiting = Waiting(networked, guest, "port:4").begun()
    networked.command("stop", "--force", guest)
    assert waiting.end() == (1, f"Error: Instance {guest} is not running\n")


def test_a_restart_is_waited_through(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    waiting = Waiting(networked, guest, "port:2222", "--timeout", "60").begun()
    networked.command("restart", "--force", guest)
    with listening(inside(pid(networked, guest)), ("127.0.0.1", 2222)):
        assert waiting.end() == (0, "")


def test_control_c_ends_it_on_both_sides(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    waiting = Waiting(networked, guest, "port:4").begun()
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.end()[0] != 0
    until(lambda: waiting.operations() == [], "the server has given it up")


def test_launch_waits_and_gives_an_address(networked: Daemon) -> None:
    name = unique("w")
    subnet = networked.request("GET", "/1.0/networks/pylxcbr0")["config"]["ipv4.address"].rpartition(".")[0]
    networked.command("launch", "busybox", name, "--ip", f"{subnet}.77", "--wait", "network", "--wait", "exec")
    try:
        found = state(networked, name)["network"]["eth0"]["addresses"]  # type: ignore[index]
        assert f"{subnet}.77" in [a["address"] for a in found]
        other = networked.command("init", "busybox", unique("w"), "--ip", "192.0.2.1", check=False)
        assert "Address 192.0.2.1 is not within the ipv4 subnet" in other.stderr
        result = networked.command(
            "launch", "busybox", f"{name}b", "--wait", "port:4", "--wait-timeout", "0", check=False
        )
        assert result.returncode == TIMED_OUT
        assert networked.instances()[f"{name}b"] == "Running"
    finally:
        networked.command("delete", "--force", *(f"{name}{letter}" for letter in ("", "b", "c", "d")), check=False)


def test_a_systemd_guest_has_booted(networked: Daemon, debian12_files: list[str]) -> None:
    image = networked.import_image("debian12", debian12_files)
    name = unique("w")
    networked.command("launch", image, name, "--wait", "boot", timeout=180)
    try:
        shown = networked.command("exec", name, "--", "systemctl", "is-system-running", check=False).stdout.strip()
        assert shown in ("running", "degraded")
    finally:
        networked.command("delete", "--force", name)


def test_a_waiting_client_does_not_hold_up_the_daemons_end(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    waiting = Waiting(networked, guest, "port:4").begun()
    begin = time.monotonic()
    networked.stop()
    assert time.monotonic() - begin < 10
    code, complaint = waiting.end()
    assert (code, complaint.count("\n")) == (1, 1)
    assert "The server is stopping" in complaint
    networked.start()


def test_many_wait_at_once(networked: Daemon, guest: str) -> None:
    networked.command("start", guest)
    failures: list[str] = []

    def wait() -> None:
        try:
            networked.request("POST", f"/1.0/instances/{guest}/wait", {"condition": "port:2222", "timeout": 30})
        except Exception as error:  # noqa: BLE001 - the test reports it
            failures.append(str(error))

    threads = [threading.Thread(target=wait) for _ in range(40)]
    for thread in threads:
        thread.start()
    with listening(inside(pid(networked, guest)), ("127.0.0.1", 2222)):
        for thread in threads:
            thread.join(30)
    assert failures == []


def test_prefer_wait(networked: Daemon, guest: str) -> None:
    """An answer's head names the operation at once; its body comes when that has ended, or the time is up."""
    connection = UnixConnection(f"{networked.dir}/unix.socket", 30)

    def begin(condition: str, seconds: int) -> tuple[http.client.HTTPResponse, str]:
        body = json.dumps({"condition": condition, "timeout": 60})
        connection.request("POST", f"/1.0/instances/{guest}/wait", body, {"Prefer": f"wait={seconds}"})
        response = connection.getresponse()
        assert (response.status, response.headers["Preference-Applied"]) == (202, f"wait={seconds}")
        return response, response.headers["Location"]

    try:
        response, operation = begin("running", 50)
        assert networked.request("GET", operation)["status"] == "Running"
        networked.request("PUT", f"/1.0/instances/{guest}/state", {"action": "start"})
        assert json.loads(response.read())["metadata"]["status"] == "Success"
        began = time.monotonic()
        response, operation = begin("stopped", 1)
        assert json.loads(response.read())["metadata"]["status"] == "Running"
        assert 0.9 < time.monotonic() - began < 10
        networked.request("DELETE", operation)
    finally:
        connection.close()
