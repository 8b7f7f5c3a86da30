"""Exec in real containers over LXD's websockets."""

from __future__ import annotations

import hashlib
import os
import signal
import threading

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.execs import Websockets, on_host
from tests.support.wait import until


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture(scope="module")
def guest(host: Daemon) -> str:
    name = unique("c")
    host.command("launch", "busybox", name)
    return name


def test_websockets(host: Daemon, guest: str) -> None:
    data = os.urandom(3 << 20)
    run = Websockets(host, guest, command=["sh", "-c", "echo oops >&2; cat; exit 4"])
    assert set(run.fds) == {"0", "1", "2", "control"}
    run.connect_all()
    outputs: dict[str, bytes] = {}
    readers = [threading.Thread(target=lambda n=n: outputs.update({n: run.read(n)})) for n in ("1", "2")]
    for reader in readers:
        reader.start()
    for start in range(0, len(data), 100_000):
        run.open["0"].send(data[start : start + 100_000])
    run.open["0"].send("")
    for reader in readers:
        reader.join(60)
    assert hashlib.sha256(outputs["1"]).digest() == hashlib.sha256(data).digest()
    assert outputs["2"] == b"oops\n"
    operation = run.wait()
    assert (operation["status_code"], operation["metadata"]["return"]) == (200, 4)
    run.close()


def test_a_gibibyte_over_a_websocket(host: Daemon, guest: str) -> None:
    run = Websockets(host, guest, command=["dd", "if=/dev/zero", "bs=1M", "count=1024"])
    run.connect_all()
    run.open["0"].send("")
    count = 0
    while (message := run.open["1"].recv(timeout=60)) != "":
        count += len(message)
    assert count == 1 << 30
    assert run.wait()["metadata"]["return"] == 0
    run.close()


def test_three_websockets_are_enough(host: Daemon, guest: str) -> None:
    run = Websockets(host, guest, command=["echo", "hello"])
    for name in ("0", "1", "2"):
        run.connect(name)
    assert run.read("1") == b"hello\n"
    assert run.read("2") == b""
    assert run.wait()["metadata"]["return"] == 0
    run.close()


def test_without_control_the_output_socket_tells_of_the_clients_end(host: Daemon, guest: str) -> None:
    marker = unique("m")
    run = Websockets(host, guest, command=["sh", "-c", "sleep 1000; true", marker])
    for name in ("0", "1", "2"):
        run.connect(name)
    until(lambda: on_host(marker), "the process")
    run.open["1"].close()
    assert run.wait()["metadata"]["return"] == 137
    run.close()


def test_background_processes_do_not_hold_the_end_up(host: Daemon, guest: str) -> None:
    run = Websockets(host, guest, command=["sh", "-c", "sleep 20 & echo started"])
    run.connect_all()
    assert run.read("1") == b"started\n"
    assert run.wait()["metadata"]["return"] == 0
    run.close()


def test_control(host: Daemon, guest: str) -> None:
    run = Websockets(host, guest, command=["sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"])
    run.connect_all()
    run.read_until("1", b"ready")
    run.open["control"].send("no json")
    run.order("window-resize", args={"width": "1"})
    run.order("signal", signal=int(signal.SIGUSR1))
    assert run.wait()["metadata"]["return"] == 9
    run.close()

    marker = unique("m")
    run = Websockets(host, guest, command=["sh", "-c", "trap '' TERM; sleep 1000; true", marker])
    run.connect_all()
    until(lambda: on_host(marker), "the process")
    run.open["control"].close()
    assert run.wait()["metadata"]["return"] == 137
    run.close()


@pytest.mark.parametrize("interactive", [False, True])
def test_control_that_makes_no_sense(host: Daemon, guest: str, interactive: bool) -> None:
    """Nothing of it does anything, and what comes after it still does."""
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    run = Websockets(host, guest, command=["sh", "-c", script], interactive=interactive)
    run.connect_all()
    run.read_until("0" if interactive else "1", b"ready")
    for order in (
        "", "[]", "null", "7", '"signal"', "{", "[" * 4000, "[" * 100_000, '{"command": "signal"}', "\ud7ff",
        '{"command": "signal", "signal": 1e999}', '{"command": "signal", "signal": -9}', '{"command": []}',
        '{"command": "signal", "signal": {}}', '{"command": "signal", "signal": ' + "9" * 5000 + "}",
        '{"command": "window-resize"}', '{"command": "window-resize", "args": []}',
        '{"command": "window-resize", "args": {"width": 1e999, "height": "x"}}',
        '{"command": "window-resize", "args": {"width": "-1", "height": "70000"}}', b"\0\xff", b"",
    ):  # fmt: skip
        run.open["control"].send(order)
    run.order("signal", signal=int(signal.SIGUSR1))
    assert run.wait()["metadata"]["return"] == 9
    run.close()


def test_control_that_is_no_websocket(host: Daemon, guest: str) -> None:
    """It is the end of the connection, and so of the command."""
    run = Websockets(host, guest, command=["sleep", "1000"])
    run.connect_all()
    run.open["control"].socket.sendall(b"\xff\xff\xff\xff")
    assert run.wait()["metadata"]["return"] == 137
    run.close()


def test_an_output_that_nobody_reads_any_more(host: Daemon, guest: str) -> None:
    """The command is told as by a pipe, and does not wait for ever."""
    run = Websockets(host, guest, command=["yes"])
    run.connect_all()
    run.read_until("1", b"y")
    run.open["1"].close_socket()
    assert run.wait()["metadata"]["return"] in (1, 141)
    run.close()


def test_an_instance_that_stops_before_the_websockets_come(host: Daemon) -> None:
    name = unique("c")
    host.command("launch", "busybox", name)
    exec_ = Websockets(host, name, command=["true"], interactive=True)
    console = Websockets(host, name, "console")
    host.command("stop", "-f", name)
    for run in (exec_, console):
        run.connect_all()
        run.read("0")
        assert run.wait()["status"] == "Failure"
        run.close()
    host.command("delete", name)


def test_a_terminal_over_websockets(host: Daemon, guest: str) -> None:
    command = ["sh", "-c", "stty size; read x; stty size; echo got $x; exit 6"]
    run = Websockets(host, guest, command=command, interactive=True, width=100, height=30)
    assert set(run.fds) == {"0", "control"}
    run.connect_all()
    run.read_until("0", b"30 100")
    run.order("window-resize", args={"width": "80", "height": "25"})
    # The size travels on a connection of its own: ask until it is there.
    run.open["0"].send(b"it\n")
    text = run.read("0")
    assert b"got it" in text
    assert run.wait()["metadata"]["return"] == 6
    run.close()


def test_failures_of_commands(host: Daemon, guest: str) -> None:
    for command, code, err in ((["nothing"], 127, "Command not found"), (["/etc"], 126, "Command not executable")):
        for interactive in (False, True):
            run = Websockets(host, guest, command=command, interactive=interactive)
            run.connect_all()
            operation = run.wait()
            assert (operation["status"], operation["err"]) == ("Failure", err)
            assert operation["metadata"]["return"] == code
            run.close()


def test_secrets_work_once(host: Daemon, guest: str) -> None:
    run = Websockets(host, guest, command=["sleep", "1000"])
    for secret in ("wrong", run.fds["0"][:-1] + "_"):
        with pytest.raises(InvalidStatus) as refused:
            run.connect("x", secret)
        assert refused.value.response.status_code == 403
    run.connect_all()
    with pytest.raises(InvalidStatus) as refused:
        run.connect("again", run.fds["0"])
    assert refused.value.response.status_code == 403
    run.close()
    assert run.wait()["metadata"]["return"] == 137


def test_missing_websockets_are_not_waited_for_for_ever(host: Daemon, guest: str) -> None:
    run = Websockets(host, guest, command=["true"])
    run.connect("control")
    operation = run.wait()
    assert operation["status"] == "Failure"
    assert "Timed out" in operation["err"]
    run.close()
