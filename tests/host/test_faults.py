"""Bad input and faults: one clear line, the right status, and nothing left behind."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.wait import until


def everything(daemon: Daemon) -> set[str]:
    """Return every path below the state directory that instances and images leave."""
    until(lambda: not any(Path(daemon.dir, "storage-pools").glob("*/.trash/*")), "deleted volumes are freed")
    tops = ("storage-pools", "images", "run", "networks")
    paths = {str(path) for top in tops for path in Path(daemon.dir, top).rglob("*")}
    # What an instance has is written beside its tree a moment after it was made.
    return {path for path in paths if "/rootfs/" not in path and not path.endswith("/backup.yaml")}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/1.0/instances", {"name": "x1", "source": {"type": "image", "alias": "no-such-image"}}, 404),
        ("POST", "/1.0/instances", {"name": "TAKEN", "source": {"type": "image", "alias": "busybox"}}, 409),
        ("POST", "/1.0/instances", {"name": "no_good", "source": {"type": "image", "alias": "busybox"}}, 400),
        ("POST", "/1.0/instances", {"name": "-x", "source": {"type": "image", "alias": "busybox"}}, 400),
        ("POST", "/1.0/instances", {"name": "../../x", "source": {"type": "image", "alias": "busybox"}}, 400),
        ("POST", "/1.0/instances", {"name": 7, "source": {"type": "image", "alias": "busybox"}}, 400),
        ("POST", "/1.0/instances", {"name": "x1", "source": {"type": "nonsense"}}, 400),
        ("POST", "/1.0/instances", {"name": "x1", "source": {"type": "none"}, "config": {"no.such.key": "1"}}, 400),
        ("POST", "/1.0/instances", {"name": "x1", "source": {"type": "none"}, "config": {"limits.memory": "x"}}, 400),
        ("POST", "/1.0/instances", {"name": "x1", "source": {"type": "none"}, "profiles": ["no-such-profile"]}, 404),
        ("POST", "/1.0/instances", {"name": "x1", "source": {"type": "none"}, "devices": {"d": {"type": "odd"}}}, 400),
        ("PATCH", "/1.0/instances/TAKEN", {"config": {"limits.cpu": "-4"}}, 400),
        ("PUT", "/1.0/instances/TAKEN/state", {"action": "explode"}, 400),
        ("PUT", "/1.0/instances/TAKEN/state", {"action": "stop"}, 400),
        ("POST", "/1.0/instances/TAKEN/exec", {"command": ["true"]}, 400),
        ("POST", "/1.0/instances/TAKEN/exec", {"command": []}, 400),
        ("GET", "/1.0/instances/no-such-instance", None, 404),
        ("GET", "/1.0/no-such-thing", None, 404),
        ("DELETE", "/1.0/instances", None, 501),
        ("POST", "/1.0/profiles", {"name": "default"}, 409),
        ("GET", "/1.0/instances/TAKEN/files?path=/../../../etc/shadow", None, 200),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)  # fmt: skip
def test_bad_requests(daemon: Daemon, taken: str, method: str, path: str, body: object, status: int) -> None:
    before = everything(daemon)
    text = json.dumps(body).replace("TAKEN", taken)
    if status == 200:  # `..` at the container's root is its root: its own file comes, not the host's
        raw = exchange(
            daemon, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".replace("TAKEN", taken)
        )
        assert Path("/etc/shadow").read_bytes() not in raw
        assert raw.startswith(b"HTTP/1.1 200")
        return
    with pytest.raises(ApiError) as failed:
        daemon.request(method, path.replace("TAKEN", taken), json.loads(text))
    assert failed.value.status == status, failed.value.text
    assert failed.value.text
    assert "\n" not in failed.value.text
    assert everything(daemon) == before


@pytest.fixture
def taken(daemon: Daemon, busybox: str) -> Iterator[str]:
    """Return a stopped instance."""
    name = unique("t")
    daemon.command("init", busybox, name)
    yield name
    daemon.command("delete", "--force", name)


def exchange(daemon: Daemon, request: str | bytes) -> bytes:
    """Send raw bytes and return everything that comes back."""
    data = request.encode() if isinstance(request, str) else request
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(f"{daemon.dir}/unix.socket")
        answer = b""
        try:
            connection.sendall(data)
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionError:
            pass  # the server may have hung up in the middle
        return answer


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"text"', b"{}" + b" " * 100 + b"{}", b"\xff\xfe", b"[" * 100_000, b'{"name": "\\ud800"}'],
    ids=["cut", "list", "text", "two", "no-utf8", "deep", "surrogate"],
)
def test_malformed_bodies(daemon: Daemon, body: bytes) -> None:
    head = f"POST /1.0/instances HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = exchange(daemon, head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:300]
    envelope = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert (envelope["type"], envelope["error_code"]) == ("error", 400)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /1.0 HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * (4 << 20) + b"\r\n\r\n",
        b"GET /" + b"a" * (4 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"NONSENSE\r\n\r\n",
    ],
    ids=["header", "path", "tls", "nonsense"],
)
def test_what_is_no_http_is_refused(daemon: Daemon, data: bytes) -> None:
    answer = exchange(daemon, data)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:300]
    assert daemon.request("GET", "/1.0")["api_version"] == "1.0"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a file system of 256 MiB."""
    path = Path(tempfile.mkdtemp(prefix="pt-disk-", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,mode=0755", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)
    path.rmdir()


def test_no_space_left(small_disk: Path, make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon(str(small_disk))
    daemon.start()
    image = daemon.import_image("busybox", busybox_files)
    daemon.command("init", image, "first")
    before = everything(daemon)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - (100 << 10)))
    failed = daemon.command("launch", image, "second", check=False)
    assert failed.returncode == 1
    assert "no space left" in failed.stderr.lower(), failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
    filler.unlink()
    assert everything(daemon) == before
    daemon.command("launch", image, "second")


def test_what_cannot_be_renamed_keeps_its_name(daemon: Daemon, taken: str) -> None:
    pool = daemon.request("GET", f"/1.0/instances/{taken}")["expanded_devices"]["root"]["pool"]
    daemon.command("snapshot", taken, "s0")
    for kind in ("containers", "containers-snapshots"):
        volume = f"{daemon.dir}/storage-pools/{pool}/{kind}/{taken}"
        subprocess.run(["mount", "--bind", volume, volume], check=True)
        failed = daemon.command("rename", taken, f"{taken}x", check=False)
        subprocess.run(["umount", volume], check=True)
        assert failed.stderr == "Error: Failed renaming the volume: Device or resource busy\n"
        daemon.command("restore", taken, "s0")
    daemon.command("rename", taken, f"{taken}x")
    daemon.command("rename", f"{taken}x", taken)


def test_what_cannot_be_deleted_stays_in_sight(daemon: Daemon, taken: str) -> None:
    pool = daemon.request("GET", f"/1.0/instances/{taken}")["expanded_devices"]["root"]["pool"]
    daemon.command("snapshot", taken, "s0")
    for kind, what in (("containers-snapshots", f"{taken}/s0"), ("containers", taken)):
        volume = f"{daemon.dir}/storage-pools/{pool}/{kind}/{what}"
        subprocess.run(["mount", "--bind", volume, volume], check=True)
        failed = daemon.command("delete", what, check=False)
        subprocess.run(["umount", volume], check=True)
        assert failed.stderr == "Error: Failed deleting the volume: Device or resource busy\n"
        assert taken in daemon.instances()
        shown = daemon.request("GET", f"/1.0/instances/{taken}/snapshots")
        assert shown == [f"/1.0/instances/{taken}/snapshots/s0"]
        daemon.command("restore", taken, "s0")
    daemon.command("delete", f"{taken}/s0")


@pytest.mark.parametrize("tool", ["dnsmasq", "libnftables.so.1"])
def test_missing_tools_are_named(make_daemon: Callable[..., Daemon], busybox_files: list[str], tool: str) -> None:
    daemon = make_daemon()
    daemon.start(without=next(iter(glob.glob(f"/usr/lib/*/{tool}")), tool))
    image = daemon.import_image("busybox", busybox_files)
    failed = daemon.command("launch", image, "c1", check=False)
    assert failed.returncode == 1
    assert tool in failed.stderr
    assert "apt" in failed.stderr
    assert daemon.instances() == {}
    assert daemon.netns
    assert daemon.netns.links() == ["lo"]


def test_mmdebstrap_is_named_when_missing(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.start(without="mmdebstrap")
    failed = daemon.command("launch", "recipe:debian/12", "c1", check=False)
    assert failed.returncode == 1
    assert "mmdebstrap" in failed.stderr
    assert daemon.request("GET", "/1.0/images") == []


def helpers(daemon: Daemon) -> list[str]:
    """Return the processes of the daemon's namespace beyond daemon, spawner, monitors and dnsmasq."""
    assert daemon.netns
    return sorted(Path(f"/proc/{pid}/comm").read_text() for pid in daemon.netns.pids())


def test_clients_that_go_away(daemon: Daemon, busybox: str) -> None:
    name = unique("g")
    daemon.command("launch", busybox, name)
    monitor = f"pylxc-{name}"[:15]  # it is called so a moment after it has started
    before = until(lambda: f"{monitor}\n" in (found := helpers(daemon)) and found, "the monitor") or []
    # A push that stops in the middle.
    head = f"POST /1.0/instances/{name}/files?path=/root/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{daemon.dir}/unix.socket")
        connection.sendall(head.encode() + bytes(5000))
    # A pull that nobody reads.
    daemon.command("exec", name, "--", "dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=32")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{daemon.dir}/unix.socket")
        connection.sendall(f"GET /1.0/instances/{name}/files?path=/root/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(100)
    # An exec whose client is killed.
    with subprocess.Popen(
        daemon.command_line("exec", name, "--", "sleep", "4711"), env=daemon.env, stdin=subprocess.DEVNULL
    ) as client:
        until(lambda: "sleep 4711" in daemon.command("exec", name, "--", "ps").stdout, "the command runs")
        client.send_signal(signal.SIGKILL)
    until(lambda: "sleep 4711" not in daemon.command("exec", name, "--", "ps").stdout, "the command has gone")
    until(lambda: helpers(daemon) == before, f"helpers go away: {helpers(daemon)} is {before}")
    daemon.command("delete", "--force", name)


def test_a_control_group_controller_that_is_missing_is_named(
    make_daemon: Callable[..., Daemon], busybox_files: list[str]
) -> None:
    """With what is off because of it: refused where it is asked for live, a warning at start; all else goes on."""
    if not os.path.ismount("/sys/fs/cgroup/pids"):
        pytest.skip("needs a controller in a hierarchy of its own, to be taken away from one daemon")
    daemon = make_daemon()
    daemon.start(unmounted="/sys/fs/cgroup/pids")
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    daemon.import_image("busybox", busybox_files)
    daemon.command("launch", "busybox", "c1", "-c", "limits.memory=64MiB")
    assert daemon.request("GET", "/1.0/warnings") == []
    failed = daemon.command("config", "set", "c1", "limits.processes=50", check=False)
    assert failed.stderr == "Error: limits.processes cannot be applied: there is no cgroup controller 'pids'\n"
    daemon.command("launch", "busybox", "c2", "-c", "limits.processes=50")
    (warning,) = daemon.request("GET", "/1.0/warnings?recursion=1")
    assert "'c2' runs without limits.processes: there is no cgroup controller 'pids'" in warning["last_message"]
    assert daemon.instances() == {"c1": "Running", "c2": "Running"}
    assert daemon.process
    inside = ["nsenter", "--mount", "--target", str(daemon.process.pid), *daemon.command_line("doctor")]
    found = subprocess.run(inside, env=daemon.env, capture_output=True, text=True, check=False)
    assert "no pids (limits.processes)" in found.stdout
