"""Containers from start to end, driven through Runtime on the real kernel."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pylxc.errors import BadRequest, Conflict, NotFound, PylxcError
from pylxc.kernel import cgroup
from pylxc.runtime.spec import Limits
from tests.support.daemon import unique
from tests.support.leaks import Leaks, remove_dead_groups
from tests.support.runtime import Host, alive, busybox_tree, inside, read_until, status
from tests.support.wait import until


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Return a runtime, and see that nothing of it is left afterwards."""
    host = Host(tmp_path / "state")
    yield host
    host.close()
    leaks = Leaks(str(host.root))
    until(lambda: not leaks.processes(None), "all processes have gone")
    assert leaks.mounts() == []
    assert leaks.cgroups() == []
    assert os.listdir(f"{host.paths.run}/instances") == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a busybox tree."""
    return busybox_tree(tmp_path / "tree")


def test_start_and_kill(host: Host, tree: Path) -> None:
    seen: list[int] = []
    pid = host.runtime.start(host.spec(tree), seen.append)
    assert seen == [pid]
    host.console("c1", "ready")
    running = host.runtime.get("c1")
    assert running is not None
    assert (running.pid, running.status, running.rootfs) == (pid, "Running", str(tree))
    assert status(running.monitor_pid)["Name"] == "pylxc-c1"
    assert status(pid)["PPid"] == str(running.monitor_pid)
    assert host.runtime.keys() == ["c1"]
    with pytest.raises(Conflict):
        host.start(tree)
    stats = host.runtime.stats("c1")
    assert stats.processes is not None
    assert 1 <= stats.processes <= 5
    assert stats.cpu_ns
    assert stats.memory
    host.runtime.kill("c1")
    assert host.end().reason == "killed"
    assert not alive(pid)
    assert host.runtime.get("c1") is None
    with pytest.raises(NotFound):
        host.runtime.kill("c1")


def test_clean_shutdown(host: Host, tree: Path) -> None:
    host.run(tree)
    assert host.runtime.shutdown("c1", 20)
    assert host.end().reason == "halt"


def test_a_shutdown_that_init_ignores_times_out(host: Host, tree: Path) -> None:
    host.start(tree, init=("/bin/sleep", "100000"))
    assert host.runtime.shutdown("c1", 0.2) is False
    assert host.runtime.wait("c1", 0) is None
    assert host.ends.empty()


@pytest.mark.parametrize(
    ("init", "reason", "code"),
    [
        (("/bin/poweroff", "-f"), "halt", -signal.SIGINT),
        (("/bin/reboot", "-f"), "reboot", -signal.SIGHUP),
        (("/bin/sh", "-c", "exit 0"), "halt", 0),
        (("/bin/sh", "-c", "exit 3"), "crash", 3),
    ],
)
def test_ends_from_inside_are_told_apart(host: Host, tree: Path, init: tuple[str, ...], reason: str, code: int) -> None:
    host.start(tree, init=init)
    ended = host.end()
    assert (ended.reason, ended.status) == (reason, code)
    assert host.runtime.keys() == []


def test_a_killed_init_is_a_crash(host: Host, tree: Path) -> None:
    pid = host.start(tree)
    os.kill(pid, signal.SIGKILL)
    assert host.end().reason == "crash"


def test_reboot_asks_init(host: Host, tmp_path: Path) -> None:
    tree = busybox_tree(tmp_path / "tree")
    (tree / "etc/inittab").write_text(
        "::sysinit:/bin/echo ready\n::ctrlaltdel:/bin/reboot\n::respawn:/bin/sleep 9999\n"
    )
    host.run(tree)
    host.runtime.reboot("c1")
    assert host.end().reason == "reboot"


def test_freeze(host: Host, tree: Path) -> None:
    host.run(tree)
    host.runtime.freeze("c1")
    running = host.runtime.get("c1")
    assert running is not None
    assert running.status == "Frozen"
    with pytest.raises(BadRequest):
        host.runtime.freeze("c1")
    with pytest.raises(BadRequest):
        host.runtime.shutdown("c1", 1)
    host.runtime.unfreeze("c1")
    running = host.runtime.get("c1")
    assert running is not None
    assert running.status == "Running"
    host.runtime.freeze("c1")
    host.runtime.kill("c1")
    assert host.end().reason == "killed"


def test_containers_outlive_the_daemon(host: Host, tree: Path) -> None:
    host.run(tree)
    before = host.runtime.get("c1")
    host.restart()
    assert host.runtime.get("c1") == before
    assert b"ready" in host.runtime.console_log("c1")
    with pytest.raises(Conflict):
        host.start(tree)
    assert host.runtime.shutdown("c1", 20)
    assert host.end().reason == "halt"


def test_an_end_while_the_daemon_is_away_is_reported(host: Host, tree: Path) -> None:
    pid = host.start(tree)
    running = host.runtime.get("c1")
    assert running is not None

    def crash() -> None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(running.monitor_pid), "the monitor has gone")

    host.restart(crash)
    ended = host.end()
    assert (ended.reason, ended.status) == ("crash", -9)


@pytest.mark.parametrize("away", [False, True])
def test_a_killed_monitor_takes_its_container_along(host: Host, tree: Path, away: bool) -> None:
    pid = host.start(tree)
    running = host.runtime.get("c1")
    assert running is not None

    def kill() -> None:
        os.kill(running.monitor_pid, signal.SIGKILL)
        until(lambda: not alive(pid), "PID 1 has gone")

    if away:
        host.restart(kill)
    else:
        kill()
    assert host.end().reason == "killed"


def test_what_ran_before_the_host_went_down_is_swept_silently(host: Host) -> None:
    run_dir = Path(host.paths.instance_run("c9"))

    def plant() -> None:
        run_dir.mkdir()
        (run_dir / "state.json").write_text('{"boot_id": "another boot"}')

    host.restart(plant)
    assert not run_dir.exists()
    assert host.ends.empty()


@pytest.mark.parametrize("lacks", ["started_at", "init_pid"])
def test_monitors_of_another_version(host: Host, tree: Path, caplog: pytest.LogCaptureFixture, lacks: str) -> None:
    pid = host.start(tree)
    file = Path(host.paths.instance_run("c1"), "state.json")
    original = file.read_text()

    def upgrade() -> None:
        state = json.loads(original) | {"of": "tomorrow"}
        del state[lacks]
        file.write_text(json.dumps(state))

    host.restart(upgrade)
    if lacks == "init_pid":
        assert host.runtime.get("c1") is None
        (line,) = caplog.messages
        assert "does not understand: KeyError('init_pid')" in line
        assert host.runtime.is_held("c1")
        with pytest.raises(Conflict):
            host.start(tree)
        host.restart(lambda: file.write_text(original))
    assert alive(pid)
    assert host.runtime.get("c1") is not None


def test_a_killed_spawner_is_replaced(host: Host, tree: Path) -> None:
    host.start(tree)
    running = host.runtime.get("c1")
    assert running is not None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[0] - 1, limit[1]))
    os.kill(int(status(running.monitor_pid)["PPid"]), signal.SIGKILL)

    def start() -> bool:
        try:
            host.start(tree, "c2")
        except PylxcError:
            return False
        return True

    try:
        until(start, "a new spawner starts containers")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert alive(running.pid)
    second = host.runtime.get("c2")
    assert second is not None
    assert resource.prlimit(second.pid, resource.RLIMIT_NOFILE) == limit
    host.runtime.kill("c1")
    assert host.end().reason == "killed"


def test_an_error_of_the_network_undoes_the_start(host: Host, tree: Path) -> None:
    def refuse(pid: int) -> None:
        raise BadRequest("no such bridge")

    with pytest.raises(BadRequest, match="no such bridge"):
        host.runtime.start(host.spec(tree), refuse)
    assert host.runtime.keys() == []
    assert host.run(tree)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": ("/nowhere",)}, "executing /nowhere: .*No such file"),
        ({"limits": Limits(cpus="9999")}, "cpuset.cpus"),
        ({"sysctls": {"net.no.such": "1"}}, "sysctl net.no.such"),
    ],
)
def test_errors_name_the_step_and_leave_nothing(host: Host, tree: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PylxcError, match=message):
        host.start(tree, **changes)
    assert os.listdir(f"{host.paths.run}/instances") == []


def test_a_missing_tree_is_named_though_the_network_fails_with_it(host: Host) -> None:
    def attach(pid: int) -> None:
        until(lambda: not alive(pid), "the start is undone")
        raise BadRequest("no such namespace")

    with pytest.raises(PylxcError, match=r"No such file .*/nowhere"):
        host.runtime.start(host.spec(Path("/nowhere")), attach)


def test_an_end_in_the_middle_of_being_noted(host: Host, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = host.runtime._watch

    def watch_until_heard(fd: int, callback: Callable[[], None], *events: int) -> None:
        watch(fd, callback, *events)
        if not events:
            until(lambda: fd not in host.runtime._watched, "the end is heard of")

    monkeypatch.setattr(host.runtime, "_watch", watch_until_heard)
    host.start(tree, init=("/bin/sh", "-c", "exit 3"))
    assert host.end().status == 3
    assert host.runtime.keys() == []


def test_an_event_of_a_closed_descriptor_is_nobody_elses(host: Host) -> None:
    runtime = host.runtime
    ready, other, quiet, last = (os.eventfd(initial) for initial in (1, 1, 0, 1))
    heard: list[int] = []
    begin, end = threading.Event(), threading.Event()

    def replace(one: int, two: int) -> None:
        """Close both, and have another that is not ready under the number of the second."""
        runtime._unwatch(one)
        runtime._unwatch(two)
        os.dup2(quiet, two)
        runtime._watch(two, lambda: heard.append(two))
        runtime._watch(last, stop)

    def stop() -> None:
        runtime._unwatch(last)
        end.set()

    gate = os.eventfd(1)

    def wait() -> None:
        runtime._unwatch(gate)
        begin.wait(10)

    runtime._watch(gate, wait)
    runtime._watch(ready, lambda: replace(ready, other))
    runtime._watch(other, lambda: replace(other, ready))
    begin.set()
    assert end.wait(10)
    assert heard == []
    for fd in {ready, other} & runtime._watched.keys():
        runtime._unwatch(fd)
    for fd in (ready, other, quiet, last, gate):
        os.close(fd)


def test_runs_of_tests_that_end_leave_others_starts_alone() -> None:
    new, old = (cgroup.open_cgroup(f"{unique('t')}.{age}") for age in ("new", "old"))
    for group in (new, old):
        group.create()
    for path in (old.path, *old.v1_paths):
        os.utime(path, (0, 0))
    remove_dead_groups()
    assert [os.path.isdir(path) for path in (new.path, *new.v1_paths)] == [True] * (1 + len(new.v1_paths))
    assert not os.path.exists(old.path)
    new.remove()


def test_the_end_of_the_daemon_during_the_start_undoes_it(host: Host, tree: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; sys.path[:0] = sys.argv[3:]\n"
        "from tests.support.runtime import Host\n"
        "host = Host(Path(sys.argv[1]))\n"
        "host.runtime.start(host.spec(Path(sys.argv[2])), lambda pid: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    top = Path(__file__).parents[2]
    away = Path(f"{host.root}-other")
    argv = [sys.executable, "-c", program, str(away), str(tree), str(top), str(top / "manager")]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    leaks = Leaks(str(away))
    until(
        lambda: not leaks.processes(None) and not leaks.cgroups() and not os.listdir(away / "run/instances"),
        "the start is undone",
    )


def test_many_at_once(host: Host, tmp_path: Path) -> None:
    keys = [f"c{number}" for number in range(8)]
    trees = {key: busybox_tree(tmp_path / key) for key in keys}
    threads = [threading.Thread(target=host.start, args=(trees[key], key)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.runtime.keys() == keys
    pids = {key: host.runtime.get(key) for key in keys}
    namespaces = {os.readlink(f"/proc/{each.pid}/ns/pid") for each in pids.values() if each}
    assert len(namespaces) == len(keys)


def test_console(host: Host, tmp_path: Path) -> None:
    tree = busybox_tree(tmp_path / "tree")
    (tree / "etc/inittab").write_text("::sysinit:/bin/echo ready\n::respawn:-/bin/sh\n")
    host.run(tree)
    with host.runtime.console_attach("c1") as first:
        first.sendall(b"echo one$((1+1))\n")
        read_until(first, b"one2")
        with host.runtime.console_attach("c1") as second:
            while first.recv(4096):  # what the guest has still written to it comes before its end
                pass
            second.sendall(b"echo two$((1+1))\n")
            read_until(second, b"two2")
            host.runtime.console_resize("c1", 111, 22)
            second.sendall(b"busybox stty size\n")
            read_until(second, b"22 111")
    assert b"two2" in host.runtime.console_log("c1")
    host.runtime.console_clear("c1")
    assert b"two2" not in host.runtime.console_log("c1")


def test_the_console_keeps_the_newest_part(host: Host, tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    shown = host.run(busybox_tree(tmp_path / "tree", script), console_buffer=4096)
    assert len(host.runtime.console_log("c1")) <= 4096
    assert "line 1999" in shown
    assert "line 5\n" not in shown


def test_the_consoles_log_outlives_the_container(host: Host, tmp_path: Path) -> None:
    host.run(busybox_tree(tmp_path / "tree", "echo last words"))
    host.runtime.kill("c1")
    assert host.end().reason == "killed"
    log = Path(host.paths.instance_logs("c1"), "console.log")
    assert b"last words" in log.read_bytes()
    assert log.stat().st_mode & 0o777 == 0o600


def test_no_request_ends_the_monitor(host: Host, tree: Path) -> None:
    host.run(tree)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        directory = os.open(host.paths.instance_run("c1"), os.O_PATH)  # whose path may be too long for an address
        control.connect(f"/proc/self/fd/{directory}/control.sock")
        os.close(directory)
        for request in (
            b"nonsense",
            b"[]",
            b'{"op":"of tomorrow"}',
            b'{"op":"console-resize","width":"x","height":-1}',
        ):
            control.send(request)
            assert b"error" in control.recv(4096)
    host.console("c1", "ready")


def test_a_stuck_console_client_does_not_block_the_container(host: Host, tmp_path: Path) -> None:
    script = "read go; i=0; while [ $i -lt 60000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done"
    host.start(busybox_tree(tmp_path / "tree", script))
    with host.runtime.console_attach("c1") as client:
        client.sendall(b"go\n")
        host.console("c1", "ready")


def test_time_namespace_and_sysctls(host: Host, tree: Path) -> None:
    pid = host.start(tree, time_namespace=True, sysctls={"net.ipv4.ip_forward": "1"})
    assert os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
    assert inside(pid, "/bin/cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"


def test_long_state_directories_work(tmp_path: Path, tree: Path) -> None:
    host = Host(tmp_path / ("d" * 120))
    try:
        host.run(tree)
        host.restart()
        assert host.runtime.keys() == ["c1"]
    finally:
        host.close()
