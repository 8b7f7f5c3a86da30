"""The consoles of real containers."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import unix_connect

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, UnixConnection, unique
from tests.support.execs import Websockets, direct
from tests.support.wait import until


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture
def guest(host: Daemon) -> Iterator[str]:
    name = unique("c")
    source = {"type": "image", "alias": "busybox"}
    host.request("POST", "/1.0/instances", {"name": name, "source": source, "start": True})
    yield name
    host.command("delete", "--force", name)


def log(host: Daemon, guest: str) -> bytes:
    connection = UnixConnection(f"{host.dir}/unix.socket", 30)
    connection.request("GET", f"/1.0/instances/{guest}/console")
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == 200, content
    return content


def write(host: Daemon, guest: str, text: str) -> None:
    """Write to the console from inside."""
    result = direct(host, guest, ["sh", "-c", f"echo {text} >/dev/console"])
    assert result[0] == {"return": 0}, result


def attach(host: Daemon, guest: str, **body: Any) -> Websockets:
    run = Websockets(host, guest, "console", **body)
    assert set(run.fds) == {"0", "control"}
    run.connect_all()
    return run


def test_both_ways_with_its_size(host: Daemon, guest: str) -> None:
    run = attach(host, guest, width=99, height=33)
    write(host, guest, "from-inside")
    run.read_until("0", b"from-inside")

    def size() -> str:
        return direct(host, guest, ["sh", "-c", "stty size </dev/console"])[1].decode().strip()

    until(lambda: size() == "33 99", "the size")
    run.order("window-resize", args={"width": "81", "height": "25"})
    until(lambda: size() == "25 81", "the new size")
    run.open["control"].send("nonsense")
    run.order("window-resize", args={"width": "-1", "height": "x"})

    # Ctrl-a is the client's business: the server hands it on, to the shell it means the beginning of the line.
    run.open["0"].send(b"cho A$((6 * 7))q\x01e\n")
    run.read_until("0", b"A42q")
    run.close()


def test_closing_control_detaches(host: Daemon, guest: str) -> None:
    run = attach(host, guest)
    run.open["control"].close()
    assert run.read("0").endswith(b"\n\r")
    assert run.wait()["status"] == "Success"
    run.close()
    write(host, guest, "still-here")
    until(lambda: b"still-here" in log(host, guest), "the line")


def test_the_next_one_takes_over(host: Daemon, guest: str) -> None:
    first = attach(host, guest)
    write(host, guest, "one")
    first.read_until("0", b"one")
    second = attach(host, guest)
    write(host, guest, "two")
    second.read_until("0", b"two")
    assert first.wait()["status"] == "Success"
    first.close()
    second.close()


def test_the_end_of_the_instance_ends_it(host: Daemon, guest: str) -> None:
    run = attach(host, guest)
    write(host, guest, "up")
    run.read_until("0", b"up")
    host.request("PUT", f"/1.0/instances/{guest}/state", {"action": "stop", "force": True})
    assert run.read("0").endswith(b"\n\r")
    assert run.wait()["status"] == "Success"
    run.close()
    with pytest.raises(ApiError) as refused:
        Websockets(host, guest, "console")
    assert (refused.value.status, "not running" in refused.value.text) == (400, True)


def test_cancel_detaches(host: Daemon, guest: str) -> None:
    run = attach(host, guest)
    write(host, guest, "up")
    run.read_until("0", b"up")
    host.request("DELETE", run.operation)
    assert run.wait()["status_code"] >= 200
    run.close()


def test_log(host: Daemon, guest: str) -> None:
    write(host, guest, "first")
    until(lambda: b"first" in log(host, guest), "the line")
    host.stop()
    host.start()
    assert b"first" in log(host, guest)
    host.request("DELETE", f"/1.0/instances/{guest}/console")
    assert log(host, guest) == b""
    write(host, guest, "second")
    until(lambda: b"second" in log(host, guest), "the line")
    host.request("PUT", f"/1.0/instances/{guest}/state", {"action": "stop", "force": True})
    assert b"second" in log(host, guest)
    host.request("DELETE", f"/1.0/instances/{guest}/console")
    assert log(host, guest) == b""


def test_bad_requests(host: Daemon, guest: str) -> None:
    for body, text in (({"type": "vga"}, "vga"), ({"width": "x"}, "width")):
        with pytest.raises(ApiError) as refused:
            Websockets(host, guest, "console", **body)
        assert (refused.value.status, text in refused.value.text) == (400, True)
    with pytest.raises(ApiError) as refused:
        Websockets(host, "nobody", "console")
    assert refused.value.status == 404
    with pytest.raises(ApiError) as refused:
        host.request("GET", "/1.0/instances/nobody/console")
    assert refused.value.status == 404


def test_event(host: Daemon, guest: str) -> None:
    with unix_connect(f"{host.dir}/unix.socket", "ws://x/1.0/events?type=lifecycle") as events:
        run = attach(host, guest)
        event = json.loads(events.recv(timeout=10))["metadata"]
        assert (event["action"], event["source"]) == ("instance-console", f"/1.0/instances/{guest}")
        run.close()


def test_a_client_that_vanishes(host: Daemon, guest: str) -> None:
    run = attach(host, guest)
    write(host, guest, "up")
    run.read_until("0", b"up")
    for connection in run.open.values():
        with contextlib.suppress(OSError):  # the end of one may have closed the other already
            connection.socket.shutdown(socket.SHUT_RDWR)
    assert run.wait()["status"] == "Success"
    run.close()
