"""Proxy devices of instances: at start, hot-plugged, in nat mode, after crashes; and the short forms of the command."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.sockets import echo_all, inside, listening, read_all, serving
from tests.support.wait import until

OUTSIDE = "198.51.100.1"
HOST = "198.51.100.2"
GUEST = "10.160.0.9"
WEB = {"type": "proxy", "listen": "tcp:127.0.0.1:8080", "connect": "tcp:127.0.0.1:80"}
NAT = {"type": "proxy", "listen": f"tcp:{HOST}:8000-8001", "connect": f"tcp:{GUEST}:80-81", "nat": "true"}


@pytest.fixture(scope="module")
def host(busybox_files: list[str], need: Callable[..., None]) -> Iterator[Daemon]:
    """Run a daemon with an outside and the network br0."""
    need("nft", "dnsmasq")
    daemon = Daemon()
    try:
        assert daemon.netns
        daemon.netns.add_outside()
        daemon.start()
        daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
        daemon.command("network", "create", "br0", "ipv4.address=10.160.0.1/24", "ipv6.address=none")
        daemon.import_image("busybox", busybox_files)
        yield daemon
    finally:
        problems = daemon.close()
    assert not problems, problems


@pytest.fixture
def guest(host: Daemon) -> Iterator[str]:
    """Return a running container with a static address."""
    name = unique("p")
    nic = {"type": "nic", "network": "br0", "ipv4.address": GUEST}
    host.command("launch", "busybox", name, input=json.dumps({"devices": {"eth0": nic}}))
    yield name
    host.command("delete", "--force", name, check=False)
    assert left(host) == []


def left(daemon: Daemon) -> list[str]:
    """Return what there is of proxies: processes, run directories, rules."""
    assert daemon.netns
    shown = subprocess.run(daemon.netns.command("nft", "list", "tables"), check=True, capture_output=True, text=True)
    found = [line for line in shown.stdout.splitlines() if ".proxy." in line]
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and Path(f"/proc/{entry}/comm").read_text() == "pylxc-proxy\n":
                log = os.readlink(f"/proc/{entry}/fd/2")
                found += [f"process {entry}"] if log.startswith(daemon.dir) else []
    with contextlib.suppress(FileNotFoundError):
        found += os.listdir(f"{daemon.dir}/run/proxies")
    return found


def set_devices(daemon: Daemon, name: str, devices: dict[str, Any]) -> None:
    """Give an instance these devices beside its NIC."""
    found = daemon.request("GET", f"/1.0/instances/{name}")
    nics = {key: device for key, device in found["devices"].items() if device["type"] != "proxy"}
    daemon.request("PUT", f"/1.0/instances/{name}", {**found, "devices": {**nics, **devices}})


def pid(daemon: Daemon, name: str) -> int:
    number: int = daemon.request("GET", f"/1.0/instances/{name}/state")["pid"]
    return number


def has_address(daemon: Daemon, name: str) -> bool:
    network = daemon.request("GET", f"/1.0/instances/{name}/state")["network"]
    return any(a["address"] == GUEST for a in network["eth0"]["addresses"])


@contextlib.contextmanager
def served(daemon: Daemon, name: str, *ports: int) -> Iterator[None]:
    """Have TCP ports of a container answer with their number and the client's address."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            server = listening(inside(pid(daemon, name)), ("0.0.0.0", port))
            stack.enter_context(serving(server, _introduce))
        yield


def _introduce(connection: socket.socket) -> None:
    connection.sendall(f"{connection.getsockname()[1]} {connection.getpeername()[0]}".encode())


def ask(daemon: Daemon, address: str, port: int, *, outside: bool = False) -> str:
    assert daemon.netns
    namespace = daemon.netns.outside if outside else daemon.netns
    assert namespace
    with namespace.entered(), socket.create_connection((address, port), 10) as client:
        return read_all(client).decode()


def refused(daemon: Daemon, address: str, port: int) -> bool:
    """Return whether nobody listens; one that does may have nobody to lead to."""
    try:
        ask(daemon, address, port)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_hot_plugged_changed_and_taken_away(host: Daemon, guest: str) -> None:
    with served(host, guest, 80, 81):
        set_devices(host, guest, {"web": WEB})
        assert ask(host, "127.0.0.1", 8080) == "80 127.0.0.1"
        set_devices(host, guest, {"web": {**WEB, "connect": "tcp:127.0.0.1:81"}})
        assert ask(host, "127.0.0.1", 8080) == "81 127.0.0.1"
        set_devices(host, guest, {})
        assert refused(host, "127.0.0.1", 8080)
        assert left(host) == []


def test_it_comes_and_goes_with_the_instance(host: Daemon, guest: str) -> None:
    path = f"{host.dir}/web.sock"
    set_devices(host, guest, {"web": WEB, "file": {**WEB, "listen": f"unix:{path}", "mode": "0600"}})
    host.command("restart", "--force", guest)
    with served(host, guest, 80):
        assert ask(host, "127.0.0.1", 8080) == "80 127.0.0.1"
    assert os.stat(path).st_mode & 0o777 == 0o600
    host.command("stop", "--force", guest)
    assert refused(host, "127.0.0.1", 8080)
    assert not os.path.exists(path)
    assert left(host) == []
    host.command("start", guest)
    host.command("exec", guest, "--", "poweroff", check=False)
    until(lambda: host.instances()[guest] == "Stopped", "it has stopped")
    until(lambda: left(host) == [], "its proxies have gone")


def test_lxc_adds_and_removes_them(host: Daemon, guest: str, need: Callable[..., None]) -> None:
    need("lxc")
    ends = ("listen=tcp:127.0.0.1:8080", "connect=tcp:127.0.0.1:80")
    host.lxc("config", "device", "add", guest, "web", "proxy", *ends)
    with served(host, guest, 80):
        assert ask(host, "127.0.0.1", 8080) == "80 127.0.0.1"
    host.lxc("config", "device", "remove", guest, "web")
    assert refused(host, "127.0.0.1", 8080)


def test_a_profile_gives_proxies(host: Daemon, guest: str) -> None:
    profile = unique("p")
    host.request("POST", "/1.0/profiles", {"name": profile, "devices": {"web": WEB}})
    host.command("profile", "add", guest, profile)
    with served(host, guest, 80):
        assert ask(host, "127.0.0.1", 8080) == "80 127.0.0.1"
    host.command("profile", "remove", guest, profile)
    assert refused(host, "127.0.0.1", 8080)
    host.command("profile", "delete", profile)


def test_the_guest_reaches_the_host(host: Daemon, guest: str) -> None:
    assert host.netns
    with host.netns.entered():
        server = listening(socket.socket(), ("127.0.0.1", 7000))
    with serving(server, echo_all):
        out = {"type": "proxy", "bind": "instance", "listen": "tcp:127.0.0.1:70", "connect": "tcp:127.0.0.1:7000"}
        set_devices(host, guest, {"out": out})
        host.command("restart", "--force", guest)
        with inside(pid(host, guest)) as client:
            client.connect(("127.0.0.1", 70))
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"hello"


def test_who_connects(host: Daemon, guest: str) -> None:
    """The user and group that a server of the host sees."""
    peers: list[tuple[int, int]] = []

    def note(connection: socket.socket) -> None:
        _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        peers.append((uid, gid))

    path = f"{host.dir}/server.sock"
    server = listening(socket.socket(socket.AF_UNIX), path)
    os.chmod(path, 0o777)
    out = {"type": "proxy", "bind": "instance", "listen": "tcp:127.0.0.1:70", "connect": f"unix:{path}"}
    with serving(server, note):
        for keys in ({}, {"security.uid": "12", "security.gid": "34"}):
            set_devices(host, guest, {"out": out | keys})
            with inside(pid(host, guest)) as client:
                client.connect(("127.0.0.1", 70))
                assert read_all(client) == b""
    assert peers == [(0, 0), (12, 34)]


def test_nat_by_the_firewall(host: Daemon, guest: str) -> None:
    set_devices(host, guest, {"nat": NAT})
    assert not [line for line in left(host) if line.startswith("process")]
    until(partial(has_address, host, guest), "it has its address")
    with served(host, guest, 80, 81):
        assert ask(host, HOST, 8000, outside=True) == f"80 {OUTSIDE}"
        assert ask(host, HOST, 8001, outside=True) == f"81 {OUTSIDE}"
        assert ask(host, HOST, 8000) == f"80 {HOST}"
    other = unique("p")
    nic = {"type": "nic", "network": "br0", "ipv4.address": "10.160.0.10"}
    taken = {**NAT, "listen": f"tcp:{HOST}:8001", "connect": "tcp:0.0.0.0:80"}
    host.command("init", "busybox", other, input=json.dumps({"devices": {"eth0": nic, "nat": taken}}))
    result = host.command("start", other, check=False)
    assert f"Tcp port 8001 of {HOST} is redirected already, by device 'nat' of instance {guest}" in result.stderr
    host.command("network", "forward", "create", "br0", HOST)
    result = host.command("network", "forward", "port", "add", "br0", HOST, "tcp", "8000", GUEST, check=False)
    assert f"is redirected already, by device 'nat' of instance {guest}" in result.stderr
    host.command("stop", "--force", guest)
    host.command("start", other)
    host.command("delete", "--force", other)
    host.command("network", "forward", "delete", "br0", HOST)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"listen": ""}, "Device 'web' needs listen"),
        ({"listen": "tcp:localhost:80"}, "Invalid value for listen: Invalid IP address 'localhost'"),
        ({"connect": "tcp:127.0.0.1:80-81"}, "Mismatch between listen port(s) and connect port(s) count"),
        ({"uid": "5"}, "Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode properties"),
        ({"connect": "unix:/run/x", "proxy_protocol": "true"}, "The PROXY header can only be sent to tcp servers"),
        ({"bind": "moon"}, "Invalid value for bind"),
        ({"nat": "true", "listen": "tcp:0.0.0.0:80"}, "Cannot listen on wildcard address '0.0.0.0' when in nat mode"),
        ({"nat": "true"}, "Cannot listen on '127.0.0.1' when in nat mode"),
        ({"nat": "true", "listen": f"udp:{HOST}:80"}, "Proxying udp <-> tcp is not supported when using NAT"),
        ({"nat": "true", "listen": "tcp:[2001:db8::1]:80"}, "Cannot mix IP versions between listen and connect"),
        ({"nat": "true", "listen": f"tcp:{HOST}:80", "bind": "instance"}, "Only host-bound proxies can use NAT"),
        (
            {"nat": "true", "listen": f"tcp:{HOST}:80", "connect": "tcp:10.160.0.44:80"},
            "Connect IP '10.160.0.44' must be one of the instance's static ipv4 addresses",
        ),
        ({"listen": "tcp:192.0.2.9:80"}, "cannot listen on tcp:192.0.2.9:80: Cannot assign requested address"),
        ({"security.uid": "4000000000"}, "user 4000000000 or group 65534 is not among the ids of the instance"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(
    host: Daemon, guest: str, changes: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ApiError) as error:
        set_devices(host, guest, {"web": {**WEB, **changes}})
    assert complaint in error.value.text
    assert error.value.status == 400
    assert "web" not in host.request("GET", f"/1.0/instances/{guest}")["devices"]
    assert left(host) == []


def test_a_taken_port_keeps_an_instance_from_starting(host: Daemon, guest: str) -> None:
    assert host.netns
    host.command("stop", "--force", guest)
    set_devices(host, guest, {"web": WEB})
    with host.netns.entered():
        other = listening(socket.socket(), ("127.0.0.1", 8080))
    result = host.command("start", guest, check=False)
    complaint = "Failed starting device 'web': cannot listen on tcp:127.0.0.1:8080: Address already in use"
    assert (result.returncode, result.stderr) == (1, f"Error: {complaint}\n")
    assert host.instances()[guest] == "Stopped"
    assert left(host) == []
    other.close()
    host.command("start", guest)


def test_daemons_come_and_go(host: Daemon, guest: str) -> None:
    set_devices(host, guest, {"web": WEB, "nat": NAT})
    until(partial(has_address, host, guest), "it has its address")
    before = left(host)
    with served(host, guest, 80, 81):
        host.signal(signal.SIGKILL)
        assert ask(host, "127.0.0.1", 8080) == "80 127.0.0.1"
        assert ask(host, HOST, 8000, outside=True) == f"80 {OUTSIDE}"
        host.start()
        assert left(host) == before
        (process,) = (line.split()[1] for line in before if line.startswith("process"))
        os.kill(int(process), signal.SIGKILL)
        until(lambda: any(line.startswith("process") for line in left(host)), "another process is there")
        until(lambda: not refused(host, "127.0.0.1", 8080), "it listens")
        assert ask(host, "127.0.0.1", 8080) == "80 127.0.0.1"
    # What ends while no daemon is there is cleared away by the next.
    host.signal(signal.SIGKILL)
    os.kill(pid_of_init(host, guest), signal.SIGKILL)
    host.start()
    assert left(host) == []


def pid_of_init(daemon: Daemon, name: str) -> int:
    number: int = json.loads(Path(f"{daemon.dir}/run/instances/{name}/state.json").read_text())["init_pid"]
    return number


def test_a_daemon_killed_in_the_middle_leaves_before_or_after(host: Daemon, guest: str) -> None:
    def change(devices: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
            set_devices(host, guest, devices)

    for step in range(4):
        client = threading.Thread(target=change, args=({"web": WEB} if step % 2 == 0 else {},))
        client.start()
        client.join(0.01 + 0.02 * step)
        host.signal(signal.SIGKILL)
        client.join()
        host.start()
        configured = "web" in host.request("GET", f"/1.0/instances/{guest}")["devices"]
        assert bool(left(host)) == configured
        assert refused(host, "127.0.0.1", 8080) != configured


def test_nat_follows_the_address_of_the_nic(host: Daemon, guest: str) -> None:
    set_devices(host, guest, {"nat": {**NAT, "connect": "tcp:0.0.0.0:80-81"}})
    rules = partial(subprocess.run, check=True, capture_output=True, text=True)
    assert host.netns
    shown = rules(host.netns.command("nft", "list", "ruleset")).stdout
    assert f"dnat ip to {GUEST}:" in shown
    host.command("config", "device", "set", guest, "eth0", "ipv4.address=10.160.0.19")
    shown = rules(host.netns.command("nft", "list", "ruleset")).stdout
    assert "dnat ip to 10.160.0.19:" in shown
    assert f"dnat ip to {GUEST}:" not in shown
    result = host.command("config", "device", "unset", guest, "eth0", "ipv4.address", check=False)
    assert "Instance has no static ipv4 address" in result.stderr
    host.command("config", "device", "set", guest, "eth0", f"ipv4.address={GUEST}")


def test_the_short_forms(host: Daemon) -> None:
    name = unique("p")
    nic = {"type": "nic", "network": "br0", "ipv4.address": GUEST}
    ports = ("-P", "8080:80", "-P", "127.0.0.1:8000-8001:81-82", "-P", "5353:53/udp")
    host.command("launch", "busybox", name, *ports, input=json.dumps({"devices": {"eth0": nic}}))
    try:
        with served(host, name, 80, 82):
            assert ask(host, "127.0.0.1", 8080) == "80 127.0.0.1"
            assert ask(host, HOST, 8080, outside=True) == "80 127.0.0.1"
            assert ask(host, "127.0.0.1", 8001) == "82 127.0.0.1"
            added = host.command("port", "add", name, f"{HOST}:9000:80", "[::1]:9000:80")
            assert added.stdout.splitlines()[0] == f"tcp:{HOST}:9000 leads to tcp:127.0.0.1:80 of {name}"
            assert ask(host, HOST, 9000, outside=True) == "80 127.0.0.1"
            assert ask(host, "::1", 9000) == "80 127.0.0.1"
        host.command("network", "forward", "create", "br0", HOST)
        host.command("network", "forward", "port", "add", "br0", HOST, "tcp", "7000", GUEST, "70")
        host.request("PATCH", f"/1.0/instances/{name}", {"devices": {"nat": NAT}})
        assert host.command("port", "list", name, "-f", "csv").stdout.splitlines() == [
            f"{name},tcp:127.0.0.1:8000-8001,tcp:127.0.0.1:81-82,PROXY,LISTENING,port-127.0.0.1-8000-8001",
            f"{name},tcp:{HOST}:7000,tcp:{GUEST}:70,FORWARD (br0),LISTENING,",
            f"{name},tcp:{HOST}:8000-8001,tcp:{GUEST}:80-81,NAT,LISTENING,nat",
            f"{name},tcp:{HOST}:9000,tcp:127.0.0.1:80,PROXY,LISTENING,port-{HOST}-9000",
            f"{name},tcp:[::1]:9000,tcp:127.0.0.1:80,PROXY,LISTENING,port-::1-9000",
            f"{name},tcp:[::]:8080,tcp:127.0.0.1:80,PROXY,LISTENING,port-8080",
            f"{name},udp:[::]:5353,udp:127.0.0.1:53,PROXY,LISTENING,port-5353-udp",
        ]
        host.command("port", "remove", name, "8080", "5353:53/udp")
        assert refused(host, "127.0.0.1", 8080)
        for words, complaint in (
            (("add", name, "8000-8001"), "the instance's port is missing"),
            (("add", name, "x:80"), "Invalid port 'x:80'"),
            (("add", name, "9001:80", "9001:81"), "is given twice"),
            (("add", name, f"{HOST}:9000:81"), "already"),
            (("add", name, "9002-9001:80"), "it runs backwards"),
            (("remove", name, "8080:80"), f"{name} has no port 8080:80"),
        ):
            result = host.command("port", *words, check=False)
            assert (result.returncode, result.stderr.count("\n")) == (1, 1)
            assert complaint in result.stderr
        host.command("stop", "--force", name)
        states = host.command("port", "list", "-f", "json").stdout
        assert {entry["state"] for entry in json.loads(states) if "port" in entry["device"]} == {"STOPPED"}
    finally:
        host.command("delete", "--force", name, check=False)
        host.command("network", "forward", "delete", "br0", HOST, check=False)
    assert left(host) == []
