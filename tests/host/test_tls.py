"""The listener on the network: where it listens, whom it speaks to, and what strangers cannot do to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import ADDRESS, PORT, Identity, TlsClient, context, dial, trust
from tests.support.daemon import ApiError, Daemon
from tests.support.wait import until

KEY = "core.https_address"
WRONG = ("nonsense::1", ":0", ":65536", "[::1", "127.0.0.1:", "a b:1", "203.0.113.9:8443", "no-such-host.invalid:8443")


def config(daemon: Daemon, **values: str) -> None:
    daemon.request("PATCH", "/1.0", {"config": {key.replace("__", "."): value for key, value in values.items()}})


def listen(daemon: Daemon, address: str, key: str = KEY) -> None:
    daemon.request("PATCH", "/1.0", {"config": {key: address}})


def is_open(daemon: Daemon, host: str, port: int) -> bool:
    try:
        dial(daemon, host, port).close()
    except OSError:
        return False
    return True


@pytest.fixture
def listening(daemon: Daemon) -> Iterator[Daemon]:
    """Return a daemon that listens on `ADDRESS`, with nothing of before."""
    listen(daemon, ADDRESS)
    yield daemon
    for url in daemon.request("GET", "/1.0/certificates"):
        daemon.request("DELETE", url)
    listen(daemon, "")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(tmp_path_factory.mktemp("identity"), "someone")


# Where it listens.


def test_it_comes_moves_and_goes(daemon: Daemon) -> None:
    assert not is_open(daemon, "127.0.0.1", PORT)
    listen(daemon, "127.0.0.1")
    assert is_open(daemon, "127.0.0.1", PORT)
    assert daemon.request("GET", "/1.0")["environment"]["addresses"] == ["127.0.0.1:8443"]
    listen(daemon, "127.0.0.1:9443")
    assert is_open(daemon, "127.0.0.1", 9443)
    assert not is_open(daemon, "127.0.0.1", PORT)
    listen(daemon, ":9443")  # the same port, which the former socket has
    assert is_open(daemon, "127.0.0.1", 9443)
    assert is_open(daemon, "::1", 9443)
    listen(daemon, "[::1]:9443")
    assert is_open(daemon, "::1", 9443)
    assert not is_open(daemon, "127.0.0.1", 9443)
    listen(daemon, "")
    assert not is_open(daemon, "::1", 9443)
    assert daemon.request("GET", "/1.0")["environment"]["addresses"] == []


def test_a_connection_outlives_the_move_of_its_listener(listening: Daemon, identity: Identity) -> None:
    trust(listening, identity)
    client = TlsClient(listening, identity)
    assert client.request("PATCH", "/1.0", {"config": {KEY: "127.0.0.1:9443"}}) in (None, {})
    assert TlsClient(listening, identity, 9443).request("GET", "/1.0")["auth"] == "trusted"


@pytest.mark.parametrize("address", WRONG)
def test_a_wrong_address_changes_nothing(listening: Daemon, address: str) -> None:
    with pytest.raises(ApiError) as raised:
        listen(listening, address)
    assert raised.value.status == 400
    assert "\n" not in raised.value.text
    assert listening.request("GET", "/1.0")["config"][KEY] == ADDRESS
    assert is_open(listening, "127.0.0.1", PORT)


def test_a_busy_address_changes_nothing(listening: Daemon) -> None:
    assert listening.netns
    with listening.netns.entered():
        other = socket.create_server(("127.0.0.2", PORT))
    with other:
        for address in (f"127.0.0.2:{PORT}", f":{PORT}"):
            with pytest.raises(ApiError, match=r"Cannot listen on .*: Address already in use") as raised:
                listen(listening, address)
            assert raised.value.status == 400
            assert TlsClient(listening).request("GET", "/1.0")["auth"] == "untrusted"
    assert listening.request("GET", "/1.0")["config"][KEY] == ADDRESS


def test_it_is_there_after_a_restart_and_a_reload(make_daemon: type[Daemon], identity: Identity) -> None:
    daemon = make_daemon()
    daemon.start()
    listen(daemon, ADDRESS)
    trust(daemon, identity)
    certificate = daemon.request("GET", "/1.0")["environment"]["certificate_fingerprint"]
    daemon.signal(signal.SIGKILL)
    assert not is_open(daemon, "127.0.0.1", PORT)
    daemon.start()
    assert TlsClient(daemon, identity).request("GET", "/1.0")["auth"] == "trusted"
    refused: list[OSError] = []
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            try:
                dial(daemon).close()
            except OSError as error:
                refused.append(error)
            time.sleep(0.005)

    thread = threading.Thread(target=knock)
    thread.start()
    daemon.command("admin", "reload")
    done.set()
    thread.join()
    assert refused == []
    found = TlsClient(daemon, identity).request("GET", "/1.0")
    assert found["auth"] == "trusted"
    assert found["environment"]["certificate_fingerprint"] == certificate


def test_an_address_that_comes_later(make_daemon: type[Daemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    assert daemon.netns
    daemon.netns.add_outside()
    listen(daemon, "198.51.100.2:8443")
    daemon.stop()
    ip = daemon.netns.command("ip", "address")
    subprocess.run([*ip, "del", "198.51.100.2/24", "dev", "up0"], check=True)
    daemon.start()
    assert "core.https_address: Cannot listen on 198.51.100.2:8443" in daemon.logs()
    subprocess.run([*ip, "add", "198.51.100.2/24", "dev", "up0"], check=True)
    until(lambda: is_open(daemon, "198.51.100.2", PORT), "the listener")


def test_the_key_is_for_root_only(listening: Daemon) -> None:
    assert stat.S_IMODE(os.stat(f"{listening.dir}/server.key").st_mode) == 0o600


# TLS.


@pytest.mark.parametrize(
    ("version", "works"),
    [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_versions(listening: Daemon, identity: Identity, version: ssl.TLSVersion, works: bool) -> None:
    tls = context(identity)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version = tls.maximum_version = version
    with dial(listening) as plain:
        if works:
            with tls.wrap_socket(plain) as connection:
                assert connection.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]
        else:
            with pytest.raises(ssl.SSLError):
                tls.wrap_socket(plain)


def test_who_has_no_certificate_sees_what_is_for_everybody(listening: Daemon) -> None:
    client = TlsClient(listening)
    found = client.request("GET", "/1.0")
    assert found["auth"] == "untrusted"
    assert found["config"] == {}
    assert "environment" not in found
    for path in (
        "/1.0/instances",
        "/1.0/certificates",
        "/1.0/events",
        "/1.0/metrics",
        "/internal/ready",
        "/1.0/images/aliases",
    ):
        assert client.status("GET", path) == 403, path
    for method in ("PUT", "PATCH"):
        assert client.status(method, "/1.0", {"config": {"user.x": "1"}}) == 403
    assert client.status("GET", "/1.0/operations/00000000-0000-0000-0000-000000000000/wait") == 404


def test_a_certificate_that_is_not_known_is_a_strangers(listening: Daemon, identity: Identity) -> None:
    client = TlsClient(listening, identity)
    assert client.request("GET", "/1.0")["auth"] == "untrusted"
    trust(listening, identity)
    assert client.request("GET", "/1.0")["auth"] == "trusted"
    assert client.request("GET", "/1.0/instances") == []
    listening.request("DELETE", f"/1.0/certificates/{identity.fingerprint[:12]}")
    assert client.request("GET", "/1.0")["auth"] == "untrusted"


def test_trust_ends_within_a_connection(listening: Daemon, identity: Identity) -> None:
    trust(listening, identity)
    get = b"GET /1.0/instances HTTP/1.1\r\nHost: x\r\n\r\n"
    with TlsClient(listening, identity).connect() as connection:
        connection.sendall(get)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        listening.request("DELETE", f"/1.0/certificates/{identity.fingerprint}")
        connection.sendall(get)
        assert connection.recv(65536).startswith(b"HTTP/1.1 403")


def test_an_expired_certificate_is_not_trusted(listening: Daemon, tmp_path: Path) -> None:
    old = Identity(tmp_path, "old", expired=True)
    with pytest.raises(ApiError, match="not valid at this time"):
        trust(listening, old)
    with listening.database() as database:
        row = (old.fingerprint, "client", "old", old.pem, False)
        database.execute(
            "insert into certificates(fingerprint,type,name,certificate,restricted) values(?,?,?,?,?)", row
        )
    assert TlsClient(listening, old).request("GET", "/1.0")["auth"] == "untrusted"


def test_a_key_is_needed_for_a_certificate(listening: Daemon, identity: Identity, tmp_path: Path) -> None:
    """Whoever shows another's certificate has to have its key: TLS sees to that, though nothing else is verified."""
    trust(listening, identity)
    other = Identity(tmp_path, "other")
    thief = context()
    with pytest.raises(ssl.SSLError):
        thief.load_cert_chain(identity.certificate_file, other.key_file)
    stolen = Path(f"{tmp_path}/stolen.pem")
    stolen.write_text(other.pem + identity.pem + Path(other.key_file).read_text())
    thief.load_cert_chain(stolen)  # its own first, the other's as if that had signed it
    with thief.wrap_socket(dial(listening)) as connection:
        connection.sendall(b"GET /1.0/instances HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 403")


def test_large_bodies_both_ways(listening: Daemon, identity: Identity) -> None:
    trust(listening, identity)
    value = "x" * (4 << 20)
    client = TlsClient(listening, identity)
    client.request("PATCH", "/1.0", {"config": {"user.large": value}})
    assert client.request("GET", "/1.0")["config"]["user.large"] == value
    client.request("PATCH", "/1.0", {"config": {"user.large": ""}})


def test_what_hands_the_connection_on_is_for_the_socket_only(listening: Daemon, identity: Identity) -> None:
    """Whoever writes to the connection beside TLS would write in clear."""
    trust(listening, identity)
    body = {"command": ["true"], "wait-for-websocket": True}
    headers = {"Upgrade": "pylxc-exec", "Connection": "Upgrade"}
    status, answer = TlsClient(listening, identity).send("POST", "/1.0/instances/none/exec", body, headers)
    assert (status, json.loads(answer)["error"]) == (400, "An exec of this kind needs the unix socket")
    for path in ("database", "ready"):
        assert TlsClient(listening, identity).status("GET", f"/internal/{path}") == 403


# Strangers.


def test_what_is_no_tls(listening: Daemon) -> None:
    for garbage in (b"GET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(4096), b"\x16\x03\x01\xff\xff" + b"\0" * 65536):
        with dial(listening) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(garbage)
            answer = connection.recv(4096)
            assert not answer or answer[0] == 0x15, answer  # nothing, or an alert
    assert "Traceback" not in listening.logs()
    assert TlsClient(listening).status("GET", "/1.0") == 200


def test_a_certificate_of_a_megabyte(listening: Daemon, tmp_path: Path) -> None:
    huge = Identity(tmp_path, "huge", padding=1 << 20)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        TlsClient(listening, huge).status("GET", "/1.0")
    with pytest.raises(ApiError, match="longer than"):
        trust(listening, huge)
    assert TlsClient(listening).status("GET", "/1.0") == 200


def test_any_server_name(listening: Daemon) -> None:
    for name in ("example.com", "x" * 63, "127.0.0.1"):
        with context().wrap_socket(dial(listening), server_hostname=name) as connection:
            connection.sendall(b"GET /1.0 HTTP/1.1\r\nHost: y\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_crowd_makes_room_for_others(listening: Daemon, identity: Identity) -> None:
    """More than may stand in the middle of their handshakes, and somebody trusted comes from the same address."""
    trust(listening, identity)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(dial(listening, source="127.0.0.1")) for _ in range(200)]
        assert TlsClient(listening, identity, source="127.0.0.1").request("GET", "/1.0/instances") == []
        closed = 0
        for connection in crowd:
            connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                closed += connection.recv(1) == b""
        assert closed >= 200 - 128
    assert "Traceback" not in listening.logs()


def test_a_key_of_the_servers_that_is_damaged(listening: Daemon) -> None:
    key = Path(f"{listening.dir}/server.key")
    whole = key.read_text()
    key.write_text("nonsense")
    try:
        with pytest.raises(ApiError, match=r"server\.key cannot be used") as raised:
            listen(listening, ":9443")
    finally:
        key.write_text(whole)
    assert raised.value.status == 400
    assert listening.request("GET", "/1.0")["config"][KEY] == ADDRESS
    assert is_open(listening, "127.0.0.1", PORT)


def test_time(listening: Daemon) -> None:
    """Who says nothing is sent away, and who tries passwords has to wait."""
    config(listening, core__trust_password="right")
    wrong = {"type": "client", "password": "wrong"}
    guesser = TlsClient(listening)
    begin = time.monotonic()

    def guess() -> None:
        for _ in range(3):
            assert guesser.status("POST", "/1.0/certificates", wrong) in (400, 403)

    with dial(listening) as silent, TlsClient(listening).connect() as slow:
        slow.sendall(b"POST /1.0/certificates HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        threads = [threading.Thread(target=guess) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begin > 6  # nine guesses, of which five are free
        with contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""
        assert 8 < time.monotonic() - begin < 14
        assert slow.recv(4096).startswith(b"HTTP/1.1 400")
        assert time.monotonic() - begin < 20
    config(listening, core__trust_password="")


def test_strangers_bodies_are_small(listening: Daemon) -> None:
    status, body = TlsClient(listening).send("POST", "/1.0/certificates", b" " * (1 << 20))
    assert (status, json.loads(body)["error"]) == (400, "The request's body is too large")


# Metrics.


def test_metrics(listening: Daemon, identity: Identity) -> None:
    trust(listening, identity, type="metrics")
    client = TlsClient(listening, identity)
    assert client.status("GET", "/1.0/metrics") == 200
    assert client.status("GET", "/1.0/instances") == 403
    assert client.request("GET", "/1.0")["auth"] == "untrusted"
    listen(listening, "127.0.0.1:8444", "core.metrics_address")
    other, nobody = TlsClient(listening, identity, 8444), TlsClient(listening, None, 8444)
    assert other.status("GET", "/1.0/metrics") == 200
    assert other.status("GET", "/1.0") == 404
    assert nobody.status("GET", "/1.0/metrics") == 403
    config(listening, core__metrics_authentication="false")
    assert nobody.status("GET", "/1.0/metrics") == 200
    assert TlsClient(listening).status("GET", "/1.0/metrics") == 200
    assert nobody.status("GET", "/1.0/instances") == 404
    config(listening, core__metrics_authentication="", core__metrics_address="")
    assert not is_open(listening, "127.0.0.1", 8444)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("core.https_trusted_proxy", "10.0.0.1"),
        ("core.https_allowed_origin", "*"),
        ("core.trust_ca_certificates", "true"),
        ("core.dns_address", ":53"),
    ],
)
def test_what_is_not_done_is_refused(daemon: Daemon, key: str, value: str) -> None:
    with pytest.raises(ApiError, match=f"{key} is not supported") as raised:
        daemon.request("PATCH", "/1.0", {"config": {key: value}})
    assert raised.value.status == 501
