"""The guest API at /dev/lxd/sock, asked by users of a container."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, unix_connect

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.guest import GuestConnection, ask, connect

DENIED = (403, "text/plain", "not authorized\n")


@pytest.fixture
def launch(daemon: Daemon, busybox: str) -> Iterator[Callable[..., str]]:
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    made: list[str] = []

    def run(**config: str) -> str:
        name = unique("g")
        source = {"type": "image", "alias": busybox}
        daemon.request("POST", "/1.0/instances", {"name": name, "source": source, "config": config, "start": True})
        made.append(name)
        return name

    yield run
    for name in made:
        daemon.command("delete", "--force", name)


def set_config(daemon: Daemon, name: str, **config: str) -> None:
    daemon.request("PATCH", f"/1.0/instances/{name}", {"config": {k.replace("_", "."): v for k, v in config.items()}})


def test_what_a_guest_is_told(daemon: Daemon, launch: Callable[..., str]) -> None:
    config = {"user.a": "one\ntwo\n", "cloud-init.user-data": "#cloud-config\n", "limits.processes": "900"}
    more = {"cloud-init.network-config": "version: 2\n", "cloud-init.vendor-data": "#cloud-config\n{}\n"}
    name = launch(**config, **more, **{"user.meta-data": "more: 1\n"})
    assert ask(daemon, name, "/") == (200, "application/json", ["/1.0"])
    about = {"api_version": "1.0", "instance_type": "container", "location": os.uname().nodename}
    assert ask(daemon, name, "/1.0") == (200, "application/json", about)
    names = (*more, "cloud-init.user-data", "user.a", "user.meta-data")
    keys = sorted(f"/1.0/config/{key}" for key in names)
    assert ask(daemon, name, "/1.0/config") == (200, "application/json", keys)
    for key, value in {**more, "user.a": "one\ntwo\n"}.items():
        assert ask(daemon, name, f"/1.0/config/{key}") == (200, "application/octet-stream", value)
    assert ask(daemon, name, "/1.0/config/user%2Ea")[2] == "one\ntwo\n"
    assert ask(daemon, name, "/1.0/config/user.none") == (404, "text/plain", "not found\n")
    assert ask(daemon, name, "/1.0/config/limits.processes") == DENIED
    identity = daemon.request("GET", f"/1.0/instances/{name}")["config"]["volatile.cloud-init.instance-id"]
    metadata = f"#cloud-config\ninstance-id: {identity}\nlocal-hostname: {name}\nmore: 1\n"
    assert ask(daemon, name, "/1.0/meta-data") == (200, "application/octet-stream", metadata)
    expanded = daemon.request("GET", f"/1.0/instances/{name}")["expanded_devices"]
    assert ask(daemon, name, "/1.0/devices") == (200, "application/json", expanded)
    assert ask(daemon, name, "/2.0")[0] == 404
    assert ask(daemon, name, "/1.0/config", method="DELETE")[0] == 405
    assert ask(daemon, name, "/1.0/images/abc/export") == DENIED


def test_only_the_guests_root_may_ask(daemon: Daemon, launch: Callable[..., str]) -> None:
    name = launch()
    for path in ("/", "/1.0", "/1.0/config", "/1.0/events"):
        assert ask(daemon, name, path, uid=1000)[0] == 401
    inside = daemon.command("exec", name, "--", "stat", "-c", "%F %a", "/dev/lxd", "/dev/lxd/sock").stdout
    assert inside == "directory 755\nsocket 666\n"
    for attempt in ("touch /dev/lxd/x", "rm /dev/lxd/sock", "chmod 777 /dev/lxd", "mv /dev/lxd/sock /dev/lxd/y"):
        assert daemon.command("exec", name, "--", "sh", "-c", attempt, check=False).returncode != 0, attempt
    assert Path(daemon.dir, "run/devlxd").stat().st_mode & 0o777 == 0o700


def test_nics_with_their_addresses(daemon: Daemon, launch: Callable[..., str]) -> None:
    name = launch()
    daemon.command("stop", "--force", name)
    nic = {"type": "nic", "nictype": "p2p", "name": "eth0"}
    daemon.request("PATCH", f"/1.0/instances/{name}", {"devices": {"lan": nic}})
    daemon.command("start", name)
    hwaddr = daemon.request("GET", f"/1.0/instances/{name}")["config"]["volatile.lan.hwaddr"]
    assert ask(daemon, name, "/1.0/devices")[2]["lan"] == {**nic, "hwaddr": hwaddr}


def test_it_can_be_turned_off_and_on(daemon: Daemon, launch: Callable[..., str]) -> None:
    name = launch(**{"security.devlxd": "false"})
    assert daemon.command("exec", name, "--", "ls", "/dev/lxd").stdout == ""
    set_config(daemon, name, security_devlxd="true")
    assert daemon.command("exec", name, "--", "ls", "/dev/lxd").stdout == "sock\n"
    (held,) = connect(daemon, name)
    with held:
        held.sendall(b"GET /1.0/config HTTP/1.1\r\nHost: x\r\n\r\n")
        assert held.recv(65536).endswith(b"[]\n")
        set_config(daemon, name, security_devlxd="false")
        assert held.recv(65536) == b""
    assert daemon.command("exec", name, "--", "ls", "/dev/lxd").stdout == ""


def test_it_survives_the_daemon(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    image = daemon.import_image("busybox", busybox_files)
    for name in ("stays", "goes"):
        source = {"type": "image", "alias": image}
        daemon.request("POST", "/1.0/instances", {"name": name, "source": source, "start": True})
    monitor = daemon.request("GET", "/1.0/instances/goes/state")["pid"]
    daemon.signal(signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)
    daemon.start()
    assert daemon.command("exec", "stays", "--", "ls", "/dev/lxd").stdout == "sock\n"
    assert ask(daemon, "stays", "/")[0] == 200
    deadline = time.monotonic() + 30
    while daemon.instances()["goes"] != "Stopped" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.listdir(f"{daemon.dir}/run/devlxd") == ["stays"]
    daemon.command("restart", "--force", "stays")
    assert ask(daemon, "stays", "/")[0] == 200
    daemon.command("stop", "--force", "stays")
    assert os.listdir(f"{daemon.dir}/run/devlxd") == []


def _websocket(daemon: Daemon, name: str, path: str) -> ClientConnection:
    (sock,) = connect(daemon, name)
    return unix_connect(sock=sock, uri=f"ws://guest{path}")


def _events(daemon: Daemon, name: str) -> None:
    set_config(daemon, name, user_colour="red", limits_processes="800")
    tmp = {"type": "disk", "source": "/usr/share", "path": "/mnt"}
    daemon.request("PATCH", f"/1.0/instances/{name}", {"devices": {"extra": tmp}})
    set_config(daemon, name, user_colour="")


def _check(events: list[dict[str, Any]]) -> None:
    device = {"type": "disk", "source": "/usr/share", "path": "/mnt"}
    assert [(event["type"], event["metadata"]) for event in events] == [
        ("config", {"key": "user.colour", "old_value": "", "value": "red"}),
        ("device", {"action": "added", "name": "extra", "config": device}),
        ("config", {"key": "user.colour", "old_value": "red", "value": ""}),
    ]
    assert all(event["timestamp"].startswith("20") for event in events)


def test_events_over_a_websocket(daemon: Daemon, launch: Callable[..., str]) -> None:
    name = launch()
    with (
        _websocket(daemon, name, "/1.0/events") as everything,
        _websocket(daemon, name, "/1.0/events?type=device") as devices,
    ):
        _events(daemon, name)
        _check([json.loads(everything.recv(10)) for _ in range(3)])
        assert json.loads(devices.recv(10))["metadata"]["name"] == "extra"
        with pytest.raises(TimeoutError):
            devices.recv(0.1)


def test_events_as_lines(daemon: Daemon, launch: Callable[..., str]) -> None:
    name, other = launch(), launch()
    with closing(GuestConnection(daemon, name)) as connection, closing(GuestConnection(daemon, other)) as others:
        for each in (connection, others):
            each.request("GET", "/1.0/events")
        response, quiet = connection.getresponse(), others.getresponse()
        assert response.headers["Content-Type"] == "application/json"
        _events(daemon, name)
        _check([json.loads(response.readline()) for _ in range(3)])
        # Another guest hears nothing of it.
        assert others.sock is not None
        others.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            quiet.readline()


def test_images(daemon: Daemon, launch: Callable[..., str], busybox: str, tmp_path: Path) -> None:
    name = launch(**{"security.devlxd.images": "true"})
    fingerprint = daemon.request("GET", f"/1.0/images/aliases/{busybox}")["target"]
    url = f"/1.0/images/{fingerprint}"
    assert ask(daemon, name, f"{url}/export")[0] == 404  # neither public nor cached
    daemon.request("PATCH", url, {"public": True})
    try:
        daemon.command("image", "export", busybox, str(tmp_path))
        with closing(GuestConnection(daemon, name)) as connection:
            connection.request("GET", f"{url}/export")
            response = connection.getresponse()
            assert response.headers.get_content_type() == "multipart/form-data"
            body = response.read()
        assert all(path.read_bytes() in body for path in tmp_path.iterdir())
    finally:
        daemon.request("PATCH", url, {"public": False})


def test_a_guest_that_floods_harms_only_itself(daemon: Daemon, launch: Callable[..., str]) -> None:
    hostile, other = launch(), launch()
    assert daemon.process
    fds = Path(f"/proc/{daemon.process.pid}/fd")
    before = len(list(fds.iterdir()))
    garbage = connect(daemon, hostile, count=1000)
    for index, each in enumerate(garbage):
        each.send(b"GET / HTTP/1.1\r\n" if index % 2 else b"GET /1.0/config HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    try:
        assert 32 <= len(garbage) < 64
        assert len(list(fds.iterdir())) <= before + 40
        assert ask(daemon, other, "/")[0] == 200
        begin = time.monotonic()
        daemon.request("GET", "/1.0/instances?recursion=2")
        assert time.monotonic() - begin < 10
    finally:
        for each in garbage:
            each.close()
    assert ask(daemon, hostile, "/")[0] == 200
    assert "Traceback" not in daemon.logs()


GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\r\n" * 10,
    b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
    b"GET /1.0/config/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /1.0/config/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /1.0/config HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nxxxx",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /1.0/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
)


def test_garbage(daemon: Daemon, launch: Callable[..., str]) -> None:
    name = launch()
    for sent in GARBAGE:
        (sock,) = connect(daemon, name)
        with sock:
            with suppress(ConnectionError):
                sock.sendall(sent)
            head = sock.recv(65536).split(b"\r\n")[0]
        assert head.split(b" ")[1:2] in ([b"400"], [b"403"], [b"404"], [b"405"], [b"200"]), (sent[:80], head)
        assert ask(daemon, name, "/")[0] == 200
    assert "Traceback" not in daemon.logs()


def test_the_instance_id_changes_with_what_cloud_init_sees(daemon: Daemon, launch: Callable[..., str]) -> None:
    name = launch()

    def identity() -> str:
        config = daemon.request("GET", f"/1.0/instances/{name}")["config"]
        assert f"instance-id: {config['volatile.cloud-init.instance-id']}\n" in ask(daemon, name, "/1.0/meta-data")[2]
        return str(config["volatile.cloud-init.instance-id"])

    seen = [identity()]
    set_config(daemon, name, user_colour="red", limits_processes="700")
    assert identity() == seen[0]
    for change in (
        {"config": {"cloud-init.user-data": "#cloud-config\n"}},
        {"config": {"user.vendor-data": "#cloud-config\n"}},
        {"config": {"cloud-init.user-data": ""}},
        {"devices": {"lan": {"type": "nic", "nictype": "p2p", "name": "eth7"}}},
        {"devices": {"lan": {"type": "nic", "nictype": "p2p", "name": "eth8"}}},
    ):
        daemon.request("PATCH", f"/1.0/instances/{name}", change)
        seen.append(identity())
    assert len(set(seen)) == 6
    # A profile's change is the instance's.
    daemon.request("PATCH", "/1.0/profiles/default", {"config": {"cloud-init.vendor-data": "#cloud-config\n"}})
    try:
        assert identity() not in seen
    finally:
        daemon.request("PATCH", "/1.0/profiles/default", {"config": {"cloud-init.vendor-data": ""}})
