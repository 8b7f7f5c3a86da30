"""Many clients at once, and some that do not keep up: nothing is mixed, nothing grows, nothing is left."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ROOT, Daemon, unique
from tests.support.wait import until
from tests.support.wire import Answer, ask, ended

LISTENERS = 1000
EXECS = 1000


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture
def make(host: Daemon) -> Iterator[Callable[..., str]]:
    def create(**body: Any) -> str:
        name = unique("c")
        host.request("POST", "/1.0/instances", {"name": name, "source": {"type": "image", "alias": "busybox"}, **body})
        return name

    yield create
    host.delete_all()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have as many descriptors as it may."""
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (given[1], given[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, given)


# Two that change one thing.


def at_once(*acts: Callable[[], Answer]) -> list[Answer]:
    """Do all of it at the same moment."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Answer]) -> Answer:
        barrier.wait()
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def outcome(host: Daemon, answer: Answer) -> int:
    """Return the status of an answer, of its operation where it began one, which tells of conflicts by its text."""
    if answer.type != "async":
        return answer.status
    operation = ended(host, answer)
    assert "Internal error" not in operation["err"]
    texts = {"ETag": 412, "Instance is busy": 409}
    return next(
        (status for text, status in texts.items() if operation["err"].startswith(text)), operation["status_code"]
    )


@pytest.mark.parametrize("methods", [("PUT", "PUT"), ("PATCH", "PATCH"), ("PUT", "PATCH")])
def test_one_of_two_changes_wins(host: Daemon, make: Callable[..., str], methods: tuple[str, str]) -> None:
    path = f"/1.0/instances/{make()}"
    for turn in range(8):
        before = ask(host, "GET", path)
        tag = {"If-Match": before.headers["etag"]}

        def change(who: str, method: str, body: Any = before.metadata, tag: Any = tag, turn: int = turn) -> Answer:
            own = {"user.first": f"{who}{turn}", "user.second": f"{who}{turn}"}
            config = {**body["config"], **own} if method == "PUT" else own
            return ask(host, method, path, {**body, "config": config, "description": f"{who}{turn}"}, tag)

        answers = at_once(lambda: change("a", methods[0]), lambda: change("b", methods[1]))
        found = [outcome(host, answer) for answer in answers]
        assert sorted(found) in ([200, 412], [200, 409]), found
        winner = "ab"[found.index(200)]
        now = host.request("GET", path)
        values = {now["description"], now["config"]["user.first"], now["config"]["user.second"]}
        assert values == {f"{winner}{turn}"}


@pytest.mark.parametrize(
    "path",
    ["/1.0/profiles/p", "/1.0/storage-pools/default/volumes/custom/v", "/1.0/projects/j", "/1.0/images/aliases/a"],
)
def test_the_same_of_other_things(host: Daemon, path: str) -> None:
    image = host.request("GET", "/1.0/images/aliases/busybox")["target"]
    where, _, name = path.rpartition("/")
    host.request("POST", where, {"name": name, "target": image})
    for turn in range(5):
        tag = {"If-Match": ask(host, "GET", path).headers["etag"]}
        answers = at_once(
            lambda: ask(host, "PATCH", path, {"description": f"a{turn}", "config": {"user.x": f"a{turn}"}}, tag),  # noqa: B023
            lambda: ask(host, "PATCH", path, {"description": f"b{turn}", "config": {"user.x": f"b{turn}"}}, tag),  # noqa: B023
        )
        found = [answer.status for answer in answers]
        assert sorted(found) in ([200, 412], [200, 409]), found
        now = host.request("GET", path)
        expected = f"{'ab'[found.index(200)]}{turn}"
        assert now["description"] == expected
        assert now.get("config", {}).get("user.x", expected) == expected
    host.request("DELETE", path)


CLASHES: list[tuple[bool, tuple[str, str, Any], tuple[str, str, Any]]] = [
    (False, ("PUT", "/state", {"action": "start"}), ("PUT", "/state", {"action": "start"})),
    (False, ("PUT", "/state", {"action": "start"}), ("DELETE", "", None)),
    (False, ("DELETE", "", None), ("DELETE", "", None)),
    (False, ("POST", "", {"name": "NEW"}), ("POST", "", {"name": "NEWER"})),
    (False, ("POST", "", {"name": "NEW"}), ("DELETE", "", None)),
    (True, ("PUT", "/state", {"action": "stop", "force": True}), ("PUT", "/state", {"action": "stop", "force": True})),
    (True, ("POST", "/snapshots", {"name": "s"}), ("POST", "/snapshots", {"name": "s"})),
    (False, ("POST", "/snapshots", {"name": "s"}), ("DELETE", "", None)),
    (False, ("POST", "/backups", {"name": "b"}), ("POST", "/backups", {"name": "b"})),
]


@pytest.mark.parametrize(
    ("running", "first", "second"), CLASHES, ids=[f"{c[1][0]}{c[1][1]}-{c[2][0]}" for c in CLASHES]
)
def test_clashes_end_whole(host: Daemon, make: Callable[..., str], running: bool, first: Any, second: Any) -> None:
    """Both, or one of the two; who loses hears so in a line, and what is there is what was told."""
    for _ in range(2):
        name = make(start=running)

        def act(what: tuple[str, str, Any], name: str = name) -> Answer:
            method, path, body = what
            text = None if body is None else json.dumps(body).replace("NEW", f"{name}-new").encode()
            return ask(host, method, f"/1.0/instances/{name}{path}", text)

        answers = at_once(lambda: act(first), lambda: act(second))
        found = [outcome(host, answer) for answer in answers]
        assert 200 in found, [answer.body for answer in answers]
        assert set(found) <= {200, 400, 404, 409}, found
        for instance in host.request("GET", "/1.0/instances?recursion=2"):
            assert instance["status"] in ("Running", "Stopped")
            assert len(instance["snapshots"]) <= 1
        names = set(host.instances())
        assert os.path.isdir(f"{host.dir}/storage-pools/default/containers/{name}/rootfs") is (name in names)
        host.delete_all()
        assert os.listdir(f"{host.dir}/storage-pools/default/containers") == []


# Names and links.


@pytest.mark.parametrize(
    "path",
    ["../../../../../../etc/shadow", "/../../../../etc/shadow", "/root/../../../../../../etc/shadow", "//etc//shadow",
     "/proc/1/root/etc/shadow", "/proc/self/root/etc/shadow", "/dev/../etc/shadow", "/./etc/./shadow"],
)  # fmt: skip
def test_paths_stay_inside(host: Daemon, make: Callable[..., str], path: str) -> None:
    name = make()
    Path(f"{host.dir}/storage-pools/default/containers/{name}/rootfs/etc/shadow").write_text("the guest's\n")
    before = Path("/etc/shadow").read_bytes()
    for method, body in (("GET", None), ("POST", b"overwritten\n"), ("GET", None), ("DELETE", None)):
        answer = ask(host, method, f"/1.0/instances/{name}/files?path={path}", body, {"X-LXD-type": "file"})
        assert answer.status in (200, 400, 403, 404), answer.body
        if method == "GET" and answer.status == 200:
            assert answer.body in (b"the guest's\n", b"overwritten\n")
    assert Path("/etc/shadow").read_bytes() == before


def test_what_is_swapped_all_the_time(host: Daemon, make: Callable[..., str], tmp_path: Path) -> None:
    """A directory and a link to the host's files change places as fast as the kernel can."""
    name = make(start=True)
    rootfs = f"{host.dir}/storage-pools/default/containers/{name}/rootfs"
    (tmp_path / "secret").write_text("the host's")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_text("the host's")
    os.makedirs(f"{rootfs}/root/d/tree")
    for file in ("d/secret", "d/tree/f"):
        Path(f"{rootfs}/root/{file}").write_text("the guest's")
    os.symlink(f"{'../' * 20}{tmp_path}", f"{rootfs}/root/l")
    script = (
        "import sys; from pylxc.kernel.rename import exchange\n"
        f"while True: exchange({rootfs + '/root/d'!r}, {rootfs + '/root/l'!r})"
    )
    swapping = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT / "manager", stderr=subprocess.DEVNULL)
    try:
        statuses = swap_race(host, f"/1.0/instances/{name}/files?path=/root/d", time.monotonic() + 3)
    finally:
        swapping.kill()
        swapping.wait()
    assert statuses[("GET", 200)] > 5, statuses  # it was no fight against errors alone
    assert {status for _, status in statuses} <= {200, 400, 403, 404, 409}, statuses
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {"secret", "tree", "tree/f"}
    assert (tmp_path / "secret").read_text() == (tmp_path / "tree/f").read_text() == "the host's"


def swap_race(host: Daemon, base: str, deadline: float) -> Counter[tuple[str, int]]:
    """Push, pull and delete until the deadline; return how often each answer came. Nothing of the host's may come."""
    rounds: list[tuple[str, str, bytes | None, dict[str, str]]] = [
        ("GET", "/secret", None, {}),
        ("GET", "&tree=1", None, {}),
        ("POST", "/secret", b"pushed", {}),
        ("POST", "/tree/new", b"pushed", {}),
        ("POST", "/made", None, {"X-LXD-type": "directory"}),
        ("POST", "/link", b"secret", {"X-LXD-type": "symlink"}),
        ("DELETE", "/made", None, {}),
        ("DELETE", "/link", None, {}),
        ("DELETE", "/tree/new", None, {}),
    ]
    seen: Counter[tuple[str, int]] = Counter()
    while time.monotonic() < deadline:
        for method, path, body, headers in rounds:
            with contextlib.suppress(http.client.HTTPException, OSError):  # a tree that changes meanwhile breaks off
                answer = ask(host, method, base + path, body, headers)
                seen[method, answer.status] += 1
                assert b"the host's" not in answer.body
    return seen


# Those that do not keep up.


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def shake_hands(host: Daemon, query: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(f"{host.dir}/unix.socket")
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /1.0/events?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    return connection


def test_a_thousand_listeners(host: Daemon, many_files: None) -> None:
    assert host.process
    pid = host.process.pid
    before, descriptors = resident(pid), len(os.listdir(f"/proc/{pid}/fd"))
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        connections = [stack.enter_context(shake_hands(host, "type=lifecycle")) for _ in range(LISTENERS)]
        for connection in connections:
            assert connection.recv(4096).startswith(b"HTTP/1.1 101")
            selector.register(connection, selectors.EVENT_READ)
        received: Counter[object] = Counter()
        for number in range(10):
            host.request("PATCH", "/1.0", {"config": {"user.n": f"<{number}>"}})
        deadline = time.monotonic() + 60
        while sum(received.values()) < 10 * LISTENERS and time.monotonic() < deadline:
            for key, _ in selector.select(1):
                reader = key.fileobj
                assert isinstance(reader, socket.socket)
                received[reader] += reader.recv(65536).count(b"config-updated")
        assert set(received.values()) == {10}
        assert len(received) == LISTENERS
        assert resident(pid) - before < 150 << 20
    until(
        lambda: len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 2, "the daemon closing what listeners have closed"
    )


def test_a_listener_that_does_not_read_is_cut_off(host: Daemon) -> None:
    assert host.process
    before = resident(host.process.pid)
    with shake_hands(host, "type=lifecycle") as slow, shake_hands(host, "type=lifecycle") as quick:
        reading = threading.Thread(target=drain, args=(quick,), daemon=True)
        reading.start()
        big = "x" * (2 << 20)
        for number in range(10):
            host.request("PATCH", "/1.0", {"config": {"user.big": f"{number}{big}"}})
        assert resident(host.process.pid) - before < 150 << 20
        with contextlib.suppress(ConnectionResetError):
            while slow.recv(1 << 20):
                pass
        quick.shutdown(socket.SHUT_RDWR)
        reading.join(20)
    host.request("PATCH", "/1.0", {"config": {"user.big": ""}})


def drain(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


# Many commands.


def counted(host: Daemon) -> dict[str, int]:
    """Count what the daemon and what it has started hold on to."""
    assert host.process
    family = [host.process.pid, *host.leaks.processes(None)]
    return {
        "processes": len(set(family)),
        "threads": len(os.listdir(f"/proc/{host.process.pid}/task")),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in set(family)),
    }


def test_a_thousand_commands(host: Daemon, make: Callable[..., str]) -> None:
    name = make(start=True)
    path = f"/1.0/instances/{name}/exec"

    def run(number: int) -> int:
        body = {"command": ["false" if number % 3 else "true"], "record-output": number % 10 == 0}
        return int(host.request("POST", path, body)["return"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(50)))  # what is made once, threads of pools among it, is there after that
        before = counted(host)
        assert list(pool.map(run, range(EXECS))) == [int(number % 3 > 0) for number in range(EXECS)]
    until(lambda: all(now <= before[key] + 8 for key, now in counted(host).items()), "what 1,000 commands needed to go")
    until(lambda: host.request("GET", "/1.0/operations") == {}, "the operations to be forgotten")
    for url in host.request("GET", f"/1.0/instances/{name}/logs"):
        if "/exec_" in url:
            host.request("DELETE", url)
    assert host.request("GET", f"/1.0/instances/{name}/logs") == [f"/1.0/instances/{name}/logs/lxc.log"]
