"""Network forwards: real packets from an outside host to a container, through a daemon that comes and goes."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon
from tests.support.namespace import NetworkNamespace
from tests.support.sockets import inside, listening, read_all, serving
from tests.support.wait import until

OUTSIDE = "198.51.100.1"
HOST = "198.51.100.2"
LATER = "198.51.100.77"
GUEST = "10.140.0.9"
OTHER = "10.140.0.10"
FORWARDS = "/1.0/networks/br0/forwards"


@pytest.fixture(scope="module")
def host(busybox_files: list[str], need: Callable[..., None]) -> Iterator[Daemon]:
    """Run a daemon with an outside, the network br0 and two containers on it."""
    need("nft", "dnsmasq")
    daemon = Daemon()
    try:
        assert daemon.netns
        daemon.netns.add_outside()
        daemon.start()
        daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
        daemon.command("network", "create", "br0", "ipv4.address=10.140.0.1/24", "ipv6.address=fd42:140::1/64")
        image = daemon.import_image("busybox", busybox_files)
        for name, address in (("c1", GUEST), ("c2", OTHER)):
            nic = {"type": "nic", "network": "br0", "ipv4.address": address}
            daemon.command("launch", image, name, input=json.dumps({"devices": {"eth0": nic}}))
        for name in ("c1", "c2"):
            until(partial(addresses, daemon, name), f"{name} has its address")
        yield daemon
    finally:
        problems = daemon.close()
    assert not problems, problems


@pytest.fixture
def empty(host: Daemon) -> Iterator[Daemon]:
    """Return the daemon, without forwards afterwards."""
    yield host
    for url in host.request("GET", FORWARDS):
        host.request("DELETE", url)
    assert "pylxc" not in tables(host, "forward")


def addresses(daemon: Daemon, name: str) -> list[str]:
    found = daemon.request("GET", f"/1.0/instances/{name}/state")["network"]["eth0"]["addresses"]
    return [a["address"] for a in found if a["family"] == "inet"]


def pid(daemon: Daemon, name: str) -> int:
    number: int = daemon.request("GET", f"/1.0/instances/{name}/state")["pid"]
    return number


def tables(daemon: Daemon, kind: str) -> str:
    """Return the tables of rules of one kind of owner."""
    assert daemon.netns
    shown = subprocess.run(daemon.netns.command("nft", "list", "tables"), check=True, capture_output=True, text=True)
    return "\n".join(line for line in shown.stdout.splitlines() if f".{kind}." in line)


def _introduce(name: str, connection: socket.socket) -> None:
    port, client = connection.getsockname()[1], connection.getpeername()[0]
    connection.sendall(f"{name} {port} {client}".encode())


@contextlib.contextmanager
def served(daemon: Daemon, name: str, *ports: int) -> Iterator[None]:
    """Have TCP ports of a container answer with their number and the client's address."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            server = listening(inside(pid(daemon, name)), ("0.0.0.0", port))
            stack.enter_context(serving(server, partial(_introduce, name)))
        yield


def ask(address: str, port: int, timeout: float = 10) -> str:
    with socket.create_connection((address, port), timeout) as client:
        return read_all(client).decode()


def outside(daemon: Daemon) -> NetworkNamespace:
    assert daemon.netns
    assert daemon.netns.outside
    return daemon.netns.outside


def create(daemon: Daemon, address: str, *ports: dict[str, str], **config: str) -> None:
    daemon.request("POST", FORWARDS, {"listen_address": address, "ports": ports, "config": config})


def tcp(listen: str, target: str, target_port: str = "") -> dict[str, str]:
    return {"protocol": "tcp", "listen_port": listen, "target_address": target, "target_port": target_port}


def test_ports_reach_their_containers_from_everywhere(empty: Daemon) -> None:
    create(empty, HOST, tcp("80", GUEST), tcp("8000-8002", GUEST, "9000-9002"), tcp("22,23", OTHER, "2222"))
    with served(empty, "c1", 80, 9000, 9001, 9002), served(empty, "c2", 2222):
        with outside(empty).entered():
            # The client's address arrives as it is.
            assert ask(HOST, 80) == f"c1 80 {OUTSIDE}"
            assert ask(HOST, 8001) == f"c1 9001 {OUTSIDE}"
            assert ask(HOST, 23) == f"c2 2222 {OUTSIDE}"
            with pytest.raises(ConnectionRefusedError):
                ask(HOST, 81)
        assert empty.netns
        with empty.netns.entered():
            assert ask(HOST, 8002).startswith("c1 9002 ")
        with inside(pid(empty, "c2")) as neighbour:
            neighbour.settimeout(10)
            neighbour.connect((HOST, 80))
            assert read_all(neighbour) == b"c1 80 10.140.0.1"


def test_a_default_target_takes_the_rest_of_the_address(empty: Daemon) -> None:
    create(empty, HOST, tcp("80", OTHER), target_address=GUEST)
    with served(empty, "c1", 443), served(empty, "c2", 80), outside(empty).entered():
        assert ask(HOST, 443) == f"c1 443 {OUTSIDE}"
        assert ask(HOST, 80) == f"c2 80 {OUTSIDE}"
        with socket.socket(type=socket.SOCK_DGRAM) as client, inside(pid(empty, "c1"), kind=socket.SOCK_DGRAM) as guest:
            guest.bind(("0.0.0.0", 53))
            client.settimeout(10)
            client.connect((HOST, 53))
            client.send(b"udp")
            data, address = guest.recvfrom(10)
            guest.sendto(data, address)
            assert client.recv(10) == b"udp"


def test_an_address_may_come_later(empty: Daemon) -> None:
    create(empty, LATER, tcp("80", GUEST))
    assert empty.netns
    subprocess.run(["ip", "-n", empty.netns.name, "address", "add", f"{LATER}/24", "dev", "up0"], check=True)
    with served(empty, "c1", 80), outside(empty).entered():
        assert ask(LATER, 80) == f"c1 80 {OUTSIDE}"
    subprocess.run(["ip", "-n", empty.netns.name, "address", "delete", f"{LATER}/24", "dev", "up0"], check=True)


def test_forwards_outlive_daemon_and_container(empty: Daemon) -> None:
    create(empty, HOST, tcp("80", GUEST))
    empty.signal(signal.SIGKILL)
    with outside(empty).entered(), served_while_away(empty):
        pass
    empty.start()
    with served(empty, "c1", 80), outside(empty).entered():
        assert ask(HOST, 80) == f"c1 80 {OUTSIDE}"
    empty.command("restart", "--force", "c1")
    until(lambda: GUEST in addresses(empty, "c1"), "c1 has its address again")
    with served(empty, "c1", 80), outside(empty).entered():
        assert ask(HOST, 80) == f"c1 80 {OUTSIDE}"


@contextlib.contextmanager
def served_while_away(daemon: Daemon) -> Iterator[None]:
    """Remove what the killed daemon has in the packet filter, as another boot does: the next one puts it again."""
    assert daemon.netns
    subprocess.run(daemon.netns.command("nft", "flush", "ruleset"), check=True)
    yield


def test_changes_act_at_once_and_are_read_back(empty: Daemon) -> None:
    create(empty, HOST, tcp("80", GUEST))
    before = empty.request("GET", f"{FORWARDS}/{HOST}")
    assert before == {
        "config": {},
        "description": "",
        "listen_address": HOST,
        "location": "none",
        "ports": [{**tcp("80", GUEST), "description": ""}],
    }
    assert empty.request("GET", FORWARDS) == [f"{FORWARDS}/{HOST}"]
    assert empty.request("GET", f"{FORWARDS}?recursion=1") == [before]
    empty.request("PATCH", f"{FORWARDS}/{HOST}", {"description": "web", "config": {"user.a": "1"}})
    assert empty.request("GET", f"{FORWARDS}/{HOST}")["ports"] == before["ports"]
    with served(empty, "c1", 80), served(empty, "c2", 80), outside(empty).entered():
        assert ask(HOST, 80) == f"c1 80 {OUTSIDE}"
        empty.request("PUT", f"{FORWARDS}/{HOST}", {"ports": [tcp("80", OTHER)]})
        assert ask(HOST, 80) == f"c2 80 {OUTSIDE}"
    after = empty.request("GET", f"{FORWARDS}/{HOST}")
    assert (after["description"], after["config"]) == ("", {})


@pytest.mark.parametrize(
    ("address", "ports", "config", "complaint"),
    [
        ("nonsense", [], {}, "Invalid listen address 'nonsense'"),
        ("0.0.0.0", [], {}, "Cannot forward 0.0.0.0"),
        ("127.0.0.1", [], {}, "Cannot forward 127.0.0.1"),
        (OTHER, [], {}, f"Listen address {OTHER} lies in the subnet of network 'br0'"),
        (HOST, [], {"colour": "red"}, "Invalid option 'colour'"),
        (HOST, [], {"target_address": "192.0.2.1"}, "is not within the network's subnet"),
        (HOST, [], {"target_address": "fd42:140::5"}, "Cannot mix IP versions"),
        (HOST, [{**tcp("80", GUEST), "protocol": "sctp"}], {}, "protocol must be one of: tcp, udp"),
        (HOST, [tcp("80", "192.0.2.1")], {}, "is not within the network's subnet"),
        (HOST, [tcp("80", "")], {}, "Invalid target address in port specification 0"),
        (HOST, [tcp("", GUEST)], {}, "Invalid port '': a number from 1 to 65535 is needed in port specification 0"),
        (HOST, [tcp("80-82", GUEST, "90-91")], {}, "Mismatch of listen port(s) and target port(s) count"),
        (HOST, [tcp("80-82", GUEST), tcp("81", OTHER)], {}, "Duplicate listen port 81 for protocol 'tcp'"),
        (HOST, [tcp("80", GUEST)], {"target_address": GUEST}, "same as default target address"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(
    empty: Daemon, address: str, ports: list[Any], config: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ApiError) as error:
        create(empty, address, *ports, **config)
    assert error.value.status == 400
    assert complaint in error.value.text
    assert empty.request("GET", FORWARDS) == []


def test_what_is_taken_or_missing(empty: Daemon) -> None:
    create(empty, HOST, tcp("80", GUEST))
    for method, path, body, status in (
        ("POST", FORWARDS, {"listen_address": HOST}, 409),
        ("GET", f"{FORWARDS}/192.0.2.9", None, 404),
        ("DELETE", f"{FORWARDS}/nonsense", None, 404),
        ("GET", "/1.0/networks/lo/forwards", None, 404),
        ("PUT", f"{FORWARDS}/{HOST}", {"ports": [tcp("80", "192.0.2.1")]}, 400),
        ("PATCH", "/1.0/networks/br0", {"config": {"ipv4.address": "10.141.0.1/24"}}, 400),
    ):
        with pytest.raises(ApiError) as error:
            empty.request(method, path, body)
        assert error.value.status == status
    with served(empty, "c1", 80), outside(empty).entered():
        assert ask(HOST, 80) == f"c1 80 {OUTSIDE}"


def test_forwards_go_with_their_network(empty: Daemon) -> None:
    empty.command("network", "create", "br1", "ipv4.address=10.150.0.1/24", "ipv6.address=none")
    empty.command("network", "forward", "create", "br1", LATER, "target_address=10.150.0.5")
    empty.command("network", "forward", "create", "br1", "2001:db8::1")
    assert LATER in tables(empty, "forward")
    empty.command("network", "rename", "br1", "br2")
    assert json.loads(empty.command("network", "forward", "list", "br2", "-f", "json").stdout)[0]["ports"] == []
    empty.command("network", "delete", "br2")
    assert tables(empty, "forward") == ""
    create(empty, LATER)


@pytest.mark.parametrize("client", ["pylxc", "lxc"])
def test_the_commands(empty: Daemon, client: str, need: Callable[..., None]) -> None:
    need("lxc")
    run = empty.command if client == "pylxc" else empty.lxc
    assert run("network", "forward", "create", "br0", HOST, "user.a=1").stdout == f"Network forward {HOST} created\n"
    run("network", "forward", "create", "br0", "2001:db8::1", "target_address=fd42:140::5")
    run("network", "forward", "port", "add", "br0", HOST, "tcp", "80,8000-8002", GUEST)
    run("network", "forward", "port", "add", "br0", HOST, "tcp", "22", GUEST, "2222")
    run("network", "forward", "port", "add", "br0", HOST, "udp", "53", GUEST)
    listed = run("network", "forward", "list", "br0", "-f", "csv").stdout
    assert listed == f"{HOST},,,3\n2001:db8::1,,fd42:140::5,0\n"
    assert run("network", "forward", "get", "br0", HOST, "user.a").stdout == "1\n"
    run("network", "forward", "set", "br0", HOST, "user.b=2")
    run("network", "forward", "unset", "br0", HOST, "user.a")
    many = run("network", "forward", "port", "remove", "br0", HOST, "tcp", check=False)
    assert "Multiple ports match. Use --force to remove them all" in many.stderr
    run("network", "forward", "port", "remove", "br0", HOST, "udp")
    run("network", "forward", "port", "remove", "br0", HOST, "tcp", "22")
    none = run("network", "forward", "port", "remove", "br0", HOST, "udp", check=False)
    assert "No matching port(s) found" in none.stderr
    shown = run("network", "forward", "show", "br0", HOST).stdout
    assert "listen_port: 80,8000-8002" in shown
    assert 'user.b: "2"' in shown
    run("network", "forward", "edit", "br0", HOST, input="description: edited\nconfig: {}\nports: []\n")
    assert empty.request("GET", f"{FORWARDS}/{HOST}")["description"] == "edited"
    assert run("network", "forward", "delete", "br0", HOST).stdout == f"Network forward {HOST} deleted\n"
    assert "2001:db8::1" in run("network", "forward", "list", "br0").stdout
