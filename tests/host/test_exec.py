"""Exec in real containers over the connection that asked for it, and recorded output."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import socket
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from fcntl import F_GETPIPE_SZ, fcntl, ioctl
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.execs import Direct, direct, on_host
from tests.support.wait import until


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


def create(host: Daemon, *, start: bool = True, **config: str) -> str:
    name = unique("c")
    source = {"type": "image", "alias": "busybox"}
    config = {key.replace("__", "."): value for key, value in config.items()}
    host.request("POST", "/1.0/instances", {"name": name, "source": source, "start": start, "config": config})
    return name


@pytest.fixture(scope="module")
def guest(host: Daemon) -> str:
    return create(host, environment__GREETING="hello", security__syscalls__deny="swapon")


@pytest.fixture
def devices() -> Iterator[Callable[[str, int], int]]:
    """Open files that are closed after the test."""
    fds: list[int] = []

    def open_it(path: str, flags: int = os.O_RDWR) -> int:
        fds.append(os.open(path, flags))
        return fds[-1]

    yield open_it
    for fd in fds:
        os.close(fd)


def shell(host: Daemon, guest: str, script: str, **body: Any) -> str:
    """Return what a script prints; it must succeed."""
    result, out, err = direct(host, guest, ["sh", "-c", script], **body)
    assert result == {"return": 0}, (result, out, err)
    return out.decode()


def pid_of(host: Daemon, guest: str) -> int:
    return int(host.request("GET", f"/1.0/instances/{guest}/state")["pid"])


# The direct kind.


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (["true"], {"return": 0}),
        (["sh", "-c", "exit 7"], {"return": 7}),
        (["sh", "-c", "kill -9 $$"], {"return": 137}),
        (["no-such-command"], {"return": 127, "error": "Command not found"}),
        (["/no/such/command"], {"return": 127, "error": "Command not found"}),
        (["/etc"], {"return": 126, "error": "Command not executable"}),
    ],
)
def test_results(host: Daemon, guest: str, command: list[str], result: dict[str, Any]) -> None:
    assert direct(host, guest, command)[0] == result


def test_the_operation_tells_as_well(host: Daemon, guest: str, devices: Callable[[str], int]) -> None:
    null = devices("/dev/null")
    for command, status, err in ((["sh", "-c", "exit 3"], 200, ""), (["nothing"], 400, "Command not found")):
        run = Direct(host, guest, command)
        running = host.request("GET", run.operation)
        assert running["status"] == "Running"
        assert running["resources"]["instances"] == [f"/1.0/instances/{guest}"]
        assert running["metadata"]["command"] == command
        run.send_stdio(null, null, null)
        code = run.result()["return"]
        ended = host.request("GET", run.operation + "/wait?timeout=10")
        assert (ended["status_code"], ended["err"], ended["metadata"]["return"]) == (status, err, code)
        run.close()


def test_streams_are_apart_and_binary_clean(host: Daemon, guest: str) -> None:
    data = os.urandom(8 << 20)
    result, out, err = direct(host, guest, ["sh", "-c", "echo oops >&2; cat"], data)
    assert result == {"return": 0}
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert err == b"oops\n"


def test_environment(host: Daemon, guest: str) -> None:
    script = "echo $GREETING,$LANG,$HOME,$USER,$container,$(pwd),$X"
    assert shell(host, guest, script, environment={"X": "1"}) == "hello,C.UTF-8,/root,root,lxc,/root,1\n"
    other = shell(host, guest, script, environment={"GREETING": "bye"}, user=1000, group=1001, cwd="/tmp")
    assert other == "bye,C.UTF-8,,,lxc,/tmp,\n"
    assert shell(host, guest, "id -u; id -g; id -G", user=1000, group=1001).split() == ["1000", "1001", "1001"]
    assert shell(host, guest, "pwd", cwd="/not/there") == "/\n"
    assert shell(host, guest, "echo $PATH").startswith("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def test_output_can_be_opened_again(host: Daemon, guest: str) -> None:
    for user in (0, 1000):
        result, out, err = direct(host, guest, ["sh", "-c", "echo a >/dev/stdout; echo b >/dev/stderr"], user=user)
        assert (result["return"], out, err) == (0, b"a\n", b"b\n")


def test_what_could_lead_to_the_host_is_refused(
    host: Daemon, guest: str, devices: Callable[[str], int], tmp_path: Path
) -> None:
    null, terminal = devices("/dev/null"), pty.openpty()
    (tmp_path / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as plug:
        bad = [
            terminal[1], os.open(tmp_path / "file", os.O_RDWR), os.open(tmp_path, os.O_RDONLY), plug.fileno(),
            os.open("/dev/zero", os.O_RDONLY),
        ]  # fmt: skip
        for fd in bad:
            run = Direct(host, guest, ["true"])
            run.send_stdio(null, fd, null)
            result = run.result()
            assert result["return"] == 1
            assert "only pipes and /dev/null" in result["error"]
            run.close()
    for fd in (*terminal, bad[1], bad[2], bad[4]):
        os.close(fd)


def test_named_pipes_are_relayed(host: Daemon, guest: str, devices: Callable[..., int], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in", 0o600)
    os.mkfifo(tmp_path / "out", 0o600)
    source, sink = devices(str(tmp_path / "in")), devices(str(tmp_path / "out"))
    run = Direct(host, guest, ["sh", "-c", "read x; echo got $x; chmod 777 /proc/self/fd/1; true"])
    run.send_stdio(source, sink, devices("/dev/null"))
    os.write(source, b"bytes\n")
    assert run.result()["return"] == 0
    assert os.read(sink, 4096) == b"got bytes\n"
    assert os.stat(tmp_path / "out").st_mode & 0o777 == 0o600
    run.close()


def test_signals_and_a_client_that_goes_away(host: Daemon, guest: str, devices: Callable[[str], int]) -> None:
    null, marker = devices("/dev/null"), unique("m")
    stdout, sink = os.pipe()
    run = Direct(host, guest, ["sh", "-c", "trap 'exit 33' USR1; echo ready; while :; do sleep 0.1; done"])
    run.send_stdio(null, sink, null)
    assert os.read(stdout, 10) == b"ready\n"
    assert fcntl(stdout, F_GETPIPE_SZ) == 1 << 20  # so that much of it goes without waiting for the reader each time
    run.signal(signal.SIGUSR1)
    assert run.result() == {"return": 33}
    run.close()

    run = Direct(host, guest, ["sh", "-c", "trap '' TERM HUP INT; echo ready; sleep 1000; true", marker])
    run.send_stdio(null, sink, null)
    assert os.read(stdout, 10) == b"ready\n"
    os.close(stdout)
    os.close(sink)
    run.close()
    until(lambda: not on_host(marker), "its end")
    assert host.request("GET", run.operation + "/wait?timeout=10")["metadata"]["return"] == 137


def test_cancel_kills(host: Daemon, guest: str, devices: Callable[[str], int]) -> None:
    null, marker = devices("/dev/null"), unique("m")
    run = Direct(host, guest, ["sh", "-c", "sleep 1000; true", marker])
    run.send_stdio(null, null, null)
    until(lambda: on_host(marker), "the process")
    host.request("DELETE", run.operation)
    assert run.result() == {"return": 137}
    assert not on_host(marker)
    run.close()


def test_terminal(host: Daemon, guest: str) -> None:
    script = "tty; stty size; ls -l $(tty) | cut -c1; test -w /dev/tty && echo ctty; read x; stty size; sleep 100"
    run = Direct(host, guest, ["sh", "-c", script], interactive=True, width=97, height=31, user=1000)
    master = run.receive_terminal()
    text = b""

    def read_until(what: bytes) -> None:
        nonlocal text
        while what not in text:
            text += os.read(master, 4096)

    read_until(b"ctty")
    assert text.startswith(b"/dev/pts/")
    assert b"31 97" in text
    ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.write(master, b"\n")
    read_until(b"24 80")
    os.write(master, b"\x03")
    assert run.result() == {"return": 130}
    os.close(master)
    run.close()


def test_it_goes_on_while_the_daemon_restarts(host: Daemon, guest: str) -> None:
    run = Direct(host, guest, ["sh", "-c", "read x; echo after $x; exit 5"])
    (source, stdin), (stdout, sink) = os.pipe(), os.pipe()
    run.send_stdio(source, sink, sink)
    host.stop()
    os.write(stdin, b"all\n")
    assert os.read(stdout, 100) == b"after all\n"
    assert run.result() == {"return": 5}
    host.start()
    for fd in (source, stdin, stdout, sink):
        os.close(fd)
    run.close()
    assert shell(host, guest, "echo again") == "again\n"


# Confinement.


def test_it_is_held_like_pid_1(host: Daemon, guest: str, devices: Callable[[str], int]) -> None:
    null, marker = devices("/dev/null"), unique("m")
    run = Direct(host, guest, ["sh", "-c", "sleep 1000; true", marker])
    run.send_stdio(null, null, null)
    (pid,) = until(lambda: on_host(marker), "the process")
    init = pid_of(host, guest)
    for kind in ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{init}/ns/{kind}"), kind
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{init}/cgroup").read_text()
    facts = [
        {
            key: value
            for key, _, value in (line.partition(":") for line in Path(f"/proc/{p}/status").read_text().splitlines())
            if key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
        }
        for p in (pid, init)
    ]
    assert facts[0] == facts[1]
    assert facts[0]["Seccomp"].strip() == "2"
    assert Path(f"/proc/{pid}/limits").read_text() == Path(f"/proc/{init}/limits").read_text()
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert os.getsid(pid) == pid
    run.close()


def test_nothing_of_the_host_is_inherited(host: Daemon, guest: str) -> None:
    assert shell(host, guest, "ls /proc/$$/fd; true").split() == ["0", "1", "2"]
    assert direct(host, guest, ["grep", "SigIgn", "/proc/self/status"])[1].split()[-1] == b"0" * 16
    assert shell(host, guest, "umask").strip() == "0022"
    assert set(shell(host, guest, "cat /proc/$$/environ | tr '\\0' '\\n' | cut -d= -f1").split()) == {
        "GREETING", "LANG", "HOME", "USER", "container", "PATH",
    }  # fmt: skip


@pytest.mark.parametrize("privileged", ["false", "true"])
def test_the_guest_cannot_get_hold_of_it_before_exec(host: Daemon, privileged: str) -> None:
    name = create(host, security__privileged=privileged)
    spy = (
        "while read -t 0 x; do :; done; while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe) && case $e in"
        " */python*) echo exe $p $e; : >>$p/exe; ls -l $p/fd $p/cwd;; esac; done; done"
    )
    (source, stdin), (stdout, sink) = os.pipe(), os.pipe()
    run = Direct(host, name, ["sh", "-c", spy])
    run.send_stdio(source, sink, sink)
    threads = [
        threading.Thread(target=lambda: [direct(host, name, ["true"]) for _ in range(15)], daemon=True)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.close()
    for fd in (source, stdin, sink):
        os.close(fd)
    with open(stdout, "rb") as file:
        seen = file.read().decode()
    if privileged == "false":
        assert "exe" not in seen
    # Where the guest's root may look, it sees a process that is confined already, and cannot write its program.
    assert "unix.socket" not in seen
    assert all("Text file busy" in line or "cannot create" not in line for line in seen.splitlines())


# Neither.


def test_recorded_output(host: Daemon, guest: str) -> None:
    body = {"command": ["sh", "-c", "echo out; echo err >&2; exit 2"], "record-output": True}
    metadata = host.request("POST", f"/1.0/instances/{guest}/exec", body)
    assert metadata["return"] == 2
    texts = {}
    for number in ("1", "2"):
        assert metadata["output"][number].startswith(f"/1.0/instances/{guest}/logs/exec_")
        path = f"{host.dir}/logs/{guest}/{metadata['output'][number].rpartition('/')[2]}"
        texts[number] = Path(path).read_text()
    assert texts == {"1": "out\n", "2": "err\n"}
    endless = {"command": ["sh", "-c", "while :; do echo more; done & exit 3"], "record-output": True}
    assert host.request("POST", f"/1.0/instances/{guest}/exec", endless)["return"] == 3
    metadata = host.request("POST", f"/1.0/instances/{guest}/exec", {"command": ["sh", "-c", "exit 8"]})
    assert (metadata["return"], "output" in metadata) == (8, False)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "No command"),
        ({"command": []}, "No command"),
        ({"command": "true"}, "command"),
        ({"command": ["a\0b"]}, "zero byte"),
        ({"command": ["true"], "environment": {"A=B": "c"}}, "environment variable"),
        ({"command": ["true"], "user": -1}, "User and group"),
        ({"command": ["true"], "group": 2**32}, "User and group"),
    ],
)
def test_bad_requests(host: Daemon, guest: str, body: dict[str, Any], text: str) -> None:
    for ask in (
        lambda: host.request("POST", f"/1.0/instances/{guest}/exec", body),
        lambda: Direct(host, guest, **{"command": [], **body}),
    ):
        with pytest.raises(ApiError) as refused:
            ask()
        assert refused.value.status == 400
        assert text in refused.value.text


def test_what_does_not_run(host: Daemon) -> None:
    name = create(host, start=False)
    for status in ("not running", "frozen"):
        for ask in (
            lambda: host.request("POST", f"/1.0/instances/{name}/exec", {"command": ["true"]}),
            lambda: Direct(host, name, ["true"]),
        ):
            with pytest.raises(ApiError) as refused:
                ask()
            assert (refused.value.status, status in refused.value.text) == (400, True), refused.value
        if status == "not running":
            host.request("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
            host.request("PUT", f"/1.0/instances/{name}/state", {"action": "freeze"})
    with pytest.raises(ApiError) as refused:
        Direct(host, "nobody", ["true"])
    assert refused.value.status == 404


def test_the_end_of_the_instance_ends_it(host: Daemon, devices: Callable[[str], int]) -> None:
    name, null = create(host), devices("/dev/null")
    marker = unique("m")
    run = Direct(host, name, ["sh", "-c", "sleep 1000; true", marker])
    run.send_stdio(null, null, null)
    until(lambda: on_host(marker), "the process")
    host.request("PUT", f"/1.0/instances/{name}/state", {"action": "stop", "force": True})
    assert run.result() == {"return": 137}
    run.close()


def test_ids_that_are_not_mapped(host: Daemon, guest: str) -> None:
    result, _, _ = direct(host, guest, ["true"], user=4_000_000_000)
    assert result["return"] == 1
    assert "error" in result
