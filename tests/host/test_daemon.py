"""The daemon's process: start, refusals, signals, socket, systemd."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import POOL_ONLY, ROOT, Daemon
from tests.support.wait import until

PROFILE = """
storage_pools: [{name: default, driver: dir}]
profiles: [{name: default, devices: {root: {type: disk, path: /, pool: default}}}]
"""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        yield daemon
    finally:
        assert daemon.close() == []


def run(directory: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a pylxcd that is expected to end by itself."""
    environment = {**os.environ, "PYLXC_DIR": directory, "PYTHONPATH": str(ROOT / "manager")}
    return subprocess.run(
        [sys.executable, "-m", "pylxc.daemon.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], text: str, status: int = 1) -> None:
    """Assert that it ended with a status and one line that says why."""
    assert result.returncode == status
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_it_starts_and_writes_its_pid(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.process is not None
    assert Path(f"{daemon.dir}/pylxcd.pid").read_text().strip() == str(daemon.process.pid)
    status = os.stat(f"{daemon.dir}/unix.socket")
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert (status.st_uid, status.st_gid) == (0, 0)
    assert daemon.request("GET", "/internal/ready") == {}
    assert daemon.request("GET", "/1.0")["environment"]["server_pid"] == daemon.process.pid
    assert stat.S_IMODE(os.stat(f"{daemon.dir}/database/pylxc.db").st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGPWR])
def test_signals_end_it_cleanly(daemon: Daemon, number: int) -> None:
    daemon.start()
    assert daemon.signal(number) == 0
    assert not os.path.lexists(f"{daemon.dir}/unix.socket")
    assert not os.path.lexists(f"{daemon.dir}/pylxcd.pid")
    daemon.start()
    assert daemon.request("GET", "/internal/ready") == {}


def test_a_second_daemon_is_refused_and_disturbs_nothing(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.process is not None
    refused(run(daemon.dir), f"Another pylxcd (pid {daemon.process.pid}) is running on {daemon.dir}")
    assert daemon.request("GET", "/internal/ready") == {}
    assert Path(f"{daemon.dir}/pylxcd.pid").read_text().strip() == str(daemon.process.pid)


def test_what_a_killed_daemon_left_is_no_obstacle(daemon: Daemon) -> None:
    daemon.start()
    daemon.signal(signal.SIGKILL)
    assert os.path.lexists(f"{daemon.dir}/unix.socket")
    daemon.start()
    assert daemon.request("GET", "/internal/ready") == {}


def test_a_directory_that_others_could_change_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 65534, 0)
    refused(run(str(foreign)), "is not owned by root")
    for mode in (0o777, 0o775):
        loose = tmp_path / f"loose{mode:o}"
        loose.mkdir()
        loose.chmod(mode)
        refused(run(str(loose)), "writable by others")
    assert list(foreign.iterdir()) == []


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("")
    refused(run(str(tmp_path / "file" / "below")), "cannot be used")
    state = tmp_path / "state"
    state.mkdir(0o711)
    (state / "unix.socket").write_text("precious")
    refused(run(str(state)), "in the way")
    assert (state / "unix.socket").read_text() == "precious"


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    refused(run(str(tmp_path), "--group", "no-such-group"), "Unknown group")
    refused(run(str(tmp_path), "--logfile", "/nonexistent/log"), "/nonexistent/log")
    refused(run(str(tmp_path / ("x" * 100))), "too long")
    assert run(str(tmp_path), "--nonsense").returncode == 2


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "pylxc.db").write_bytes(b"rubbish" * 1000)
    refused(run(str(tmp_path)), "cannot be used", status=3)
    assert not os.path.lexists(tmp_path / "pylxcd.pid")


def test_the_group_may_use_the_socket_and_is_named_in_events(daemon: Daemon) -> None:
    nogroup = grp.getgrnam("nogroup").gr_gid
    daemon.start("--group", "nogroup")
    assert os.stat(f"{daemon.dir}/unix.socket").st_gid == nogroup
    client = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /internal/ready HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
        "sys.exit(b'200 OK' not in s.recv(100))"
    )
    for group, status in ((nogroup, 0), (grp.getgrnam("games").gr_gid, 1)):
        result = subprocess.run(
            [sys.executable, "-c", client, f"{daemon.dir}/unix.socket"],
            user=65534,
            group=group,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == status, result.stderr
        assert ("PermissionError" in result.stderr) == (status == 1)


def test_systemd_hands_the_socket_and_hears_when_it_is_ready(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    path = str(tmp_path / "unix.socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        listener.bind(path)
        listener.listen()
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        # LISTEN_PID is the daemon's own pid, so this sets it and becomes the daemon.
        launcher = (
            "import os,sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
            "os.execv(sys.executable, [sys.executable, '-m', 'pylxc.daemon.main'])"
        )
        command = [sys.executable, "-c", launcher, str(listener.fileno())]
        environment = {**os.environ, "PYLXC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT / "manager")}
        environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        inode = os.stat(path).st_ino
        process = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()])
        try:
            assert manager.recv(100) == b"READY=1"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(b"GET /internal/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
            process.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
    assert os.stat(path).st_ino == inode  # systemd's, and it stays for the next start


def test_requests_that_are_waiting_are_let_go_when_it_stops(daemon: Daemon) -> None:
    daemon.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.connect(f"{daemon.dir}/unix.socket")
        listener.sendall(
            b"GET /1.0/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert listener.recv(1000).startswith(b"HTTP/1.1 101")
        begin = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - begin < 10  # and not after the twenty that operations have


def test_a_client_that_waits_hears_the_end_of_its_operation(
    daemon: Daemon, busybox_files: list[str], name: str
) -> None:
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    daemon.import_image("busybox", busybox_files)
    connection = socket.socket(socket.AF_UNIX)
    with connection:
        connection.settimeout(30)
        connection.connect(f"{daemon.dir}/unix.socket")

        def ask(line: str, body: str = "") -> dict[str, object]:
            connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                answer += connection.recv(65536)
            found = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert isinstance(found, dict)
            return found

        source = {"type": "image", "alias": "busybox"}
        operation = ask("POST /1.0/instances", json.dumps({"name": name, "source": source}))["operation"]
        assert daemon.process is not None
        daemon.process.terminate()
        metadata = ask(f"GET {operation}/wait")["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["status"] == "Success"
    assert daemon.process.wait(20) == 0
    daemon.start()
    assert daemon.instances() == {name: "Stopped"}


def test_shutdown_answers_and_ends(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.process is not None
    assert daemon.request("PUT", "/internal/shutdown") == {}
    assert daemon.process.wait(20) == 0


def test_no_descriptor_leaks_into_the_spawner(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.process is not None
    (spawner,) = until(lambda: _children(daemon.process, "pylxc-spawner"), "the spawner")
    held = {os.readlink(f"/proc/{spawner}/fd/{fd}") for fd in os.listdir(f"/proc/{spawner}/fd")}
    assert not {name for name in held if daemon.dir in name and not name.endswith((".log", ".out"))}


def _children(process: subprocess.Popen[bytes] | None, name: str) -> list[str]:
    """Return the children of a process's threads that have this name; others come and go."""
    assert process is not None
    found = []
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += [pid] if Path(f"/proc/{pid}/comm").read_text().strip() == name else []
    return found


def test_the_unmodified_lxc_talks_to_it(daemon: Daemon, need: object) -> None:
    need("lxc")  # type: ignore[operator]
    daemon.start()
    info = daemon.lxc("info").stdout
    assert "server_version: 5.0.2" in info
    assert "auth: trusted" in info
    resources = daemon.lxc("info", "--resources").stdout
    assert "CPU" in resources
    assert json.loads(daemon.lxc("query", "/1.0/cluster").stdout)["enabled"] is False
    daemon.lxc("config", "set", "user.note", "hello")
    assert daemon.lxc("config", "get", "user.note").stdout.strip() == "hello"
    failed = daemon.lxc("config", "set", "core.nonsense", "x", check=False)
    assert failed.returncode == 1
    assert "core.nonsense" in failed.stderr
    assert daemon.lxc("operation", "list", "-f", "json").stdout.strip() == "[]"


def _pid_of_init(daemon: Daemon, name: str) -> int:
    pid = daemon.request("GET", f"/1.0/instances/{name}/state")["pid"]
    assert isinstance(pid, int)
    return pid


def test_sigterm_leaves_containers_and_sigpwr_stops_them_first(
    daemon: Daemon, busybox_files: list[str], name: str
) -> None:
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    alias = daemon.import_image("busybox", busybox_files)
    source = {"type": "image", "alias": alias}
    daemon.request("POST", "/1.0/instances", {"name": name, "source": source})
    daemon.request("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
    init = _pid_of_init(daemon, name)

    assert daemon.stop() == 0
    assert os.path.exists(f"/proc/{init}")
    daemon.start()
    assert _pid_of_init(daemon, name) == init
    assert daemon.instances() == {name: "Running"}

    assert daemon.signal(signal.SIGPWR, timeout=60) == 0
    assert not os.path.exists(f"/proc/{init}")
    daemon.start()  # it ran when the host went down, so it runs again
    deadline = time.monotonic() + 20
    while daemon.instances() != {name: "Running"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert _pid_of_init(daemon, name) not in (0, init)


def test_it_begins_anew_and_no_connection_is_refused(daemon: Daemon, busybox_files: list[str]) -> None:
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=PROFILE)
    image = daemon.import_image("busybox", busybox_files)
    daemon.command("launch", image, "c1")

    def limit() -> str:
        return daemon.command("exec", "c1", "--", "sh", "-c", "ulimit -n").stdout

    def facts() -> tuple[int, int]:
        pid = daemon.request("GET", "/1.0/instances/c1/state")["pid"]
        return pid, daemon.request("GET", "/1.0")["environment"]["server_pid"]

    before, descriptors = facts(), limit()
    failures: list[Exception] = []
    answers = 0
    over = threading.Event()

    def ask() -> None:
        nonlocal answers
        while not over.is_set():
            try:
                daemon.request("GET", "/1.0/instances")
                answers += 1
            except Exception as error:  # noqa: BLE001 - whatever it is
                failures.append(error)
            time.sleep(0.01)

    client = threading.Thread(target=ask)
    client.start()
    try:
        for _ in range(2):
            daemon.command("admin", "reload")
    finally:
        over.set()
        client.join()
    assert failures == []
    assert answers > 2
    assert facts() == before
    assert Path(f"{daemon.dir}/pylxcd.log").read_text().count("Ready after") == 3
    daemon.command("restart", "--force", "c1")
    assert limit() == descriptors
    daemon.command("delete", "--force", "c1")
    assert daemon.stop() == 0
    assert not os.path.exists(f"{daemon.dir}/unix.socket")
