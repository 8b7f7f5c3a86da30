"""The processes of proxy devices beside a container without a daemon: what they carry, as whom, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylxc.drivers.device import registry
from pylxc.drivers.device.driver import Context, HostTools, RunConfig
from pylxc.errors import BadRequest
from pylxc.kernel import namespaces
from pylxc.runtime.proxies import Proxies
from pylxc.runtime.spec import Endpoint, ProxySpec
from tests.support.daemon import unique
from tests.support.leaks import Leaks
from tests.support.namespace import NetworkNamespace
from tests.support.runtime import Host, busybox_tree, status
from tests.support.runtime import inside as run_inside
from tests.support.sockets import bound_inside, echo_all, inside, listening, read_all, serving
from tests.support.wait import until

CONNECTIONS = 10_000
LOCAL = "127.0.0.1"
SCRIPT = "ip link set lo up; ip address add 10.1.2.3/32 dev lo; mkdir -p /run"


class Proxied:
    """A running container and its proxies."""

    def __init__(self, root: Path) -> None:
        self.host = Host(root / "state")
        self.proxies = Proxies(self.host.paths, self.host.runtime)
        self.proxies.open()
        self.tree = busybox_tree(root / "tree", SCRIPT)
        self.start()

    def start(self) -> None:
        """Start the container."""
        self.pid = self.host.start(self.tree)
        self.host.console("c1", "ready")

    def add(self, listen: Endpoint, connect: Endpoint, *, bind: str = "host", **more: object) -> int:
        """Start the proxy `p` and return its pid."""
        self.proxies.start("c1", "p", ProxySpec(bind=bind, listen=listen, connect=connect, **more), self.pid)  # type: ignore[arg-type]
        return self.proxy_pid()

    def proxy_pid(self) -> int:
        path = Path(self.host.paths.proxy_run("c1", "p"), "state.json")
        pid: int = json.loads(path.read_text())["pid"]
        return pid

    def restart(self) -> None:
        """Do what the daemon's restart does."""
        self.proxies.close()
        self.host.restart()
        self.proxies = Proxies(self.host.paths, self.host.runtime)
        self.proxies.open()

    def log(self) -> str:
        return Path(self.host.paths.instance_logs("c1"), "proxy.p.log").read_text()

    def close(self) -> None:
        self.proxies.close()
        self.host.close()


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)  # proxies reach unix sockets here as nobody
    namespace = NetworkNamespace(unique("pt")[:12])
    with namespace.entered():
        proxied = Proxied(tmp_path)
        yield proxied
        proxied.close()
        leaks = Leaks(str(proxied.host.root))
        until(lambda: not leaks.processes(namespace), "all processes have gone")
    namespace.close()


def tcp(*ports: int, address: str = LOCAL) -> Endpoint:
    return Endpoint(kind="tcp", address=address, ports=ports)


def udp(*ports: int, address: str = LOCAL) -> Endpoint:
    return Endpoint(kind="udp", address=address, ports=ports)


def unix(path: Path | str) -> Endpoint:
    return Endpoint(kind="unix", address=str(path))


def talk(address: tuple[str, int], text: bytes) -> bytes:
    """Say something, end our side, and return what comes until the other side ends."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def test_tcp_in_bulk_with_both_ends_closed_one_after_the_other(proxied: Proxied) -> None:
    proxied.add(tcp(8080), tcp(80))
    with serving(listening(inside(proxied.pid), (LOCAL, 80)), echo_all):
        text = os.urandom(1 << 20) * 24
        assert talk((LOCAL, 8080), text) == text
        assert talk((LOCAL, 8080), b"") == b""


def test_each_port_of_a_range_goes_to_its_own(proxied: Proxied) -> None:
    proxied.add(tcp(8001, 8002, 8005), tcp(91, 92, 95))
    with contextlib.ExitStack() as stack:
        for port in (91, 92, 95):
            server = listening(inside(proxied.pid), (LOCAL, port))
            stack.enter_context(serving(server, lambda c: c.sendall(b"%d" % c.getsockname()[1])))
        assert [talk((LOCAL, port), b"") for port in (8001, 8002, 8005)] == [b"91", b"92", b"95"]


def test_a_target_that_is_down_resets_and_is_told_once_in_the_log(proxied: Proxied) -> None:
    proxied.add(tcp(8080), tcp(80))
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            talk((LOCAL, 8080), b"")
    assert proxied.log().count("Failed connecting to tcp:127.0.0.1:80: Connection refused") == 1
    with serving(listening(inside(proxied.pid), (LOCAL, 80)), echo_all):
        assert talk((LOCAL, 8080), b"now") == b"now"
    assert "Connecting works again" in proxied.log()


def test_an_aborted_connection_is_aborted_on_the_other_side(proxied: Proxied) -> None:
    proxied.add(tcp(8080), tcp(80))
    with listening(inside(proxied.pid), (LOCAL, 80)) as server:
        client = socket.create_connection((LOCAL, 8080), timeout=20)
        client.sendall(b"x")
        connection, _ = server.accept()
        connection.settimeout(20)
        assert connection.recv(1) == b"x"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        connection.close()


def test_a_client_that_does_not_read_holds_up_nobody_else(proxied: Proxied) -> None:
    proxied.add(tcp(8080), tcp(80))
    with listening(inside(proxied.pid), (LOCAL, 80)) as server, socket.create_connection((LOCAL, 8080), 20) as deaf:
        connection, _ = server.accept()
        connection.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += connection.send(b"x" * (1 << 20))
        with serving(server, echo_all):
            assert talk((LOCAL, 8080), b"me") == b"me"
        connection.close()
        assert len(read_all(deaf)) == sent


def test_the_proxy_header_names_the_client(proxied: Proxied) -> None:
    proxied.add(tcp(8080, address="::"), tcp(80), proxy_protocol=True)
    with serving(listening(inside(proxied.pid), (LOCAL, 80)), echo_all):
        with socket.create_connection((LOCAL, 8080), timeout=20) as client:
            port = client.getsockname()[1]
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d 8080\r\n" % port
        with socket.create_connection(("::1", 8080), timeout=20) as client:
            port = client.getsockname()[1]
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"PROXY TCP6 ::1 ::1 %d 8080\r\n" % port


def test_udp_clients_are_answered_each_and_from_the_address_they_spoke_to(proxied: Proxied) -> None:
    proxied.add(udp(5300, address="::"), udp(53))
    server = inside(proxied.pid, kind=socket.SOCK_DGRAM)
    server.bind((LOCAL, 53))
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    clients.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    places = [(LOCAL, 5300), ("127.9.9.9", 5300), ("127.0.0.2", 5300), ("::1", 5300)]
    seen = []
    for client, place in zip(clients, places, strict=True):
        client.settimeout(20)
        client.connect(place)  # a connected socket takes answers from there only
        client.send(place[0].encode())
        seen.append(server.recvfrom(100))
    for data, address in reversed(seen):
        server.sendto(b"to " + data, address)
    for client, place in zip(clients, places, strict=True):
        assert client.recv(100) == b"to " + place[0].encode()
        client.close()
    assert len({address for _, address in seen}) == 4
    server.close()


def test_udp_to_a_target_that_comes_later(proxied: Proxied) -> None:
    proxied.add(udp(5300), udp(53))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(b"lost", (LOCAL, 5300))
        until(lambda: "Connection refused" in proxied.log(), "the refusal is in the log")
        server = inside(proxied.pid, kind=socket.SOCK_DGRAM)
        server.bind((LOCAL, 53))
        client.sendto(b"found", (LOCAL, 5300))
        data, address = server.recvfrom(100)
        server.sendto(data, address)
        assert client.recvfrom(100) == (b"found", (LOCAL, 5300))
        server.close()


def test_streams_become_datagrams_and_datagrams_streams(proxied: Proxied) -> None:
    proxied.add(tcp(8080), udp(53))
    server = inside(proxied.pid, kind=socket.SOCK_DGRAM)
    server.bind((LOCAL, 53))
    with socket.create_connection((LOCAL, 8080), timeout=20) as client:
        client.sendall(b"one")
        data, address = server.recvfrom(100)
        server.sendto(data + b" answer", address)
        assert client.recv(100) == b"one answer"
    server.close()
    proxied.add(udp(5300), tcp(80))
    with listening(inside(proxied.pid), (LOCAL, 80)) as stream, socket.socket(type=socket.SOCK_DGRAM) as speaker:
        speaker.settimeout(20)
        speaker.sendto(b"two", (LOCAL, 5300))
        connection, _ = stream.accept()
        assert connection.recv(100) == b"two"
        connection.sendall(b"two answer")
        assert speaker.recv(100) == b"two answer"
        connection.close()


def test_unix_sockets_carry_descriptors_into_the_container(proxied: Proxied, tmp_path: Path) -> None:
    path = tmp_path / "host.sock"
    proxied.add(unix(path), unix("/tmp/inside.sock"), uid=12, gid=13, mode=0o660)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12, 13, 0o660)
    with bound_inside(proxied.pid, "/tmp/inside.sock") as server, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        read_fd, write_fd = os.pipe()
        socket.send_fds(client, [b"take"], [write_fd])
        os.close(write_fd)
        connection, _ = server.accept()
        data, (passed,), _, _ = socket.recv_fds(connection, 100, 2)
        assert data == b"take"
        os.write(passed, b"through the pipe")
        os.close(passed)
        assert os.read(read_fd, 100) == b"through the pipe"
        assert os.read(read_fd, 100) == b""
        connection.sendall(b"bye")
        connection.close()
        assert read_all(client) == b"bye"
        os.close(read_fd)
    proxied.proxies.stop("c1", "p")
    assert not path.exists()


def test_abstract_sockets_on_both_sides(proxied: Proxied) -> None:
    name = unique("pt")
    proxied.add(unix(f"@{name}"), unix("@there"))
    server = listening(inside(proxied.pid, socket.AF_UNIX), "\0there")
    with serving(server, echo_all), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(f"\0{name}")
        client.sendall(b"abstract")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"abstract"


def test_a_container_reaches_the_host_by_tcp_and_unix(proxied: Proxied, tmp_path: Path) -> None:
    path = tmp_path / "service.sock"
    with serving(listening(socket.socket(socket.AF_UNIX), str(path)), echo_all):
        path.chmod(0o600)
        pid = proxied.add(tcp(80), unix(path), bind="instance")
        assert status(pid)["Uid"].split()[0] == "0"
        assert int(status(pid)["CapEff"], 16) == 1 << 1  # dac_override, for the sake of others' sockets
        with inside(proxied.pid) as client:
            client.connect((LOCAL, 80))
            client.sendall(b"from inside")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"from inside"


def test_a_socket_inside_is_made_again_when_the_guest_covers_or_deletes_it(proxied: Proxied) -> None:
    with serving(listening(socket.socket(), (LOCAL, 8000)), echo_all):
        proxied.add(unix("/run/late/service.sock"), tcp(8000), bind="instance", uid=5, mode=0o600)
        late = Path(f"/proc/{proxied.pid}/root/run/late")
        assert not late.exists()
        run_inside(proxied.pid, "mkdir", "/run/late")
        path = late / "service.sock"

        def ask() -> bytes:
            until(path.exists, "the socket is there")
            assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (1000005, 0o600)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(path))
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                return read_all(client)

        assert ask() == b"hello"
        path.unlink()
        assert ask() == b"hello"


def test_a_proxy_has_no_rights_and_the_guest_does_not_see_it(proxied: Proxied) -> None:
    pid = proxied.add(tcp(8080), tcp(80))
    facts = status(pid)
    assert facts["Uid"].split() == ["1065534"] * 4
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    assert facts["Groups"] == ""
    for kind in ("net", "mnt", "user", "uts", "ipc"):
        assert namespaces.identity(kind, pid) == namespaces.identity(kind, proxied.pid)
    assert namespaces.identity("pid", pid) == namespaces.identity("pid")
    held = {os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")}
    lock = f"{proxied.host.paths.proxy_run('c1', 'p')}/lock"
    log = f"{proxied.host.paths.instance_logs('c1')}/proxy.p.log"
    assert held <= {"/dev/null", log, lock, "anon_inode", "socket", "pipe"}
    assert os.stat(f"/proc/{pid}/fd").st_uid == 0  # not dumpable
    other = proxied.add(tcp(8080), tcp(80), user=7, group=8)
    assert (status(other)["Uid"].split()[0], status(other)["Gid"].split()[0]) == ("1000007", "1000008")


@pytest.mark.parametrize("bind", ["host", "instance"])
def test_a_taken_port_is_refused_in_one_line_and_leaves_nothing(proxied: Proxied, bind: str) -> None:
    taken = r"^cannot listen on tcp:127\.0\.0\.1:8081: Address already in use$"
    sock = socket.socket() if bind == "host" else inside(proxied.pid)
    with listening(sock, (LOCAL, 8081)), pytest.raises(BadRequest, match=taken):
        proxied.add(tcp(8080, 8081), tcp(80), bind=bind)
    assert not os.path.exists(f"{proxied.host.paths.run}/proxies/c1")
    proxied.add(tcp(8080, 8081), tcp(80), bind=bind)


def test_the_host_has_to_have_the_address_and_the_guest_may_take_it_later(proxied: Proxied) -> None:
    with pytest.raises(BadRequest, match=r"tcp:192\.0\.2\.1:8080: Cannot assign requested address"):
        proxied.add(tcp(8080, address="192.0.2.1"), tcp(80))
    with serving(listening(socket.socket(), (LOCAL, 8000)), echo_all):
        proxied.add(tcp(80, address="192.0.2.1"), tcp(8000), bind="instance")
        run_inside(proxied.pid, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
        with inside(proxied.pid) as client:
            client.connect(("192.0.2.1", 80))
            client.sendall(b"late")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"late"


def test_a_file_that_is_there_is_kept_and_a_dead_socket_is_replaced(proxied: Proxied, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(BadRequest, match="exists and is no socket"):
        proxied.add(unix(path), tcp(80))
    assert path.read_text() == "precious"
    live = tmp_path / "live.sock"
    with listening(socket.socket(socket.AF_UNIX), str(live)), pytest.raises(BadRequest, match="already in use"):
        proxied.add(unix(live), tcp(80))
    proxied.add(unix(live), tcp(80))


def test_it_outlives_the_daemon_and_is_found_again(proxied: Proxied) -> None:
    pid = proxied.add(tcp(8080), tcp(80))
    with listening(inside(proxied.pid), (LOCAL, 80)) as server, socket.create_connection((LOCAL, 8080), 20) as client:
        connection, _ = server.accept()
        proxied.restart()
        assert proxied.proxy_pid() == pid
        client.sendall(b"still here")
        assert connection.recv(100) == b"still here"
        connection.close()
    proxied.proxies.stop("c1", "p")
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the process has gone")
    with pytest.raises(ConnectionRefusedError):
        talk((LOCAL, 8080), b"")


def test_one_that_dies_is_started_again_also_while_no_daemon_is_there(proxied: Proxied) -> None:
    pid = proxied.add(tcp(8080), tcp(80))
    os.kill(pid, signal.SIGKILL)
    until(lambda: proxied.proxy_pid() != pid, "another process is there")
    with serving(listening(inside(proxied.pid), (LOCAL, 80)), echo_all):
        until(lambda: not Path(f"/proc/{pid}").exists(), "the first one has gone")
        assert talk((LOCAL, 8080), b"again") == b"again"
        pid = proxied.proxy_pid()
        proxied.proxies.close()
        os.kill(pid, signal.SIGKILL)
        proxied.restart()
        assert proxied.proxy_pid() != pid
        assert talk((LOCAL, 8080), b"and again") == b"and again"


def test_it_enters_no_files_of_the_host_where_the_container_has_none_yet(proxied: Proxied) -> None:
    device = {"type": "proxy", "listen": "tcp:127.0.0.1:8080", "connect": "unix:/run/x"}
    tools = HostTools(proxies=proxied.proxies, **dict.fromkeys(  # type: ignore[arg-type]
        ("netlink", "firewall", "redirects", "run_dir", "has_others")))  # fmt: skip
    driver = registry.find(device)

    def attach(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        driver.attach(context(pid), RunConfig(), tools)
        os.kill(pid, signal.SIGCONT)

    def context(pid: int) -> Context:
        return Context(name="p", device=device, config={}, instance="c1", pid=pid)

    proxied.host.runtime.kill("c1")
    spec = proxied.host.spec(proxied.tree)
    pid = proxied.host.runtime.start(spec, attach, lambda pid: driver.enter(context(pid), tools))
    assert namespaces.identity("mnt", proxied.proxy_pid()) == namespaces.identity("mnt", pid)


def test_it_ends_with_its_container(proxied: Proxied) -> None:
    pid = proxied.add(tcp(8080), tcp(80))
    proxied.host.runtime.kill("c1")
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the proxy has gone")
    proxied.restart()
    assert not os.path.exists(f"{proxied.host.paths.run}/proxies/c1")


@pytest.fixture
def connections() -> Iterator[int]:
    """Return how many connections this process can have both ends of: 10,000 where root may raise its limits."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], max(before[1], 3 * CONNECTIONS)))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(CONNECTIONS, hard // 2 - 512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], hard))


def test_ten_thousand_connections_at_once(connections: int, proxied: Proxied) -> None:
    pid = proxied.add(tcp(8080), tcp(80))
    server = listening(inside(proxied.pid), (LOCAL, 80))
    taken: list[socket.socket] = []

    def take() -> None:
        while len(taken) < connections:
            taken.append(server.accept()[0])

    thread = threading.Thread(target=take)
    thread.start()
    clients = []
    try:
        for number in range(connections):
            client = socket.socket()
            client.bind((f"127.0.1.{number % 200 + 1}", 0))
            client.settimeout(60)
            client.connect((LOCAL, 8080))
            clients.append(client)
        thread.join(60)
        assert len(taken) == connections
        # Idle ones hold their two sockets and nothing else.
        assert len(os.listdir(f"/proc/{pid}/fd")) < 2 * connections + 100
        speaking = clients[::100]
        for client in speaking:
            client.sendall(b"x")
        poll = select.poll()
        for sock in taken:
            poll.register(sock, select.POLLIN)
        until(lambda: len(poll.poll(0)) == len(speaking), "what was said has arrived")
    finally:
        for sock in (*clients, *taken, server):
            sock.close()
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 100, "the proxy has let go of all of them")
