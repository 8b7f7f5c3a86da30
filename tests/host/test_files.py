"""Files of real containers, running and stopped."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import socket
import tarfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.sync.client import unix_connect

from tests.support.daemon import POOL_ONLY, Daemon, UnixConnection, unique
from tests.support.execs import Direct, direct
from tests.support.wait import until


class Files:
    """The files API of one instance."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon = daemon
        self.name = name
        self.rootfs = Path(f"{daemon.dir}/storage-pools/default/containers/{name}/rootfs")

    def url(self, path: str, query: str = "") -> str:
        return f"/1.0/instances/{self.name}/files?path={quote(path)}{query}"

    def ask(self, method: str, path: str, body: Any = None, query: str = "", **headers: str) -> Any:
        """Return (status, headers, body) of one request; `uid=1` is the header X-LXD-uid."""
        connection = UnixConnection(f"{self.daemon.dir}/unix.socket", 60)
        try:
            fields = {f"X-LXD-{key}": value for key, value in headers.items()}
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, self.url(path, query), body, fields, encode_chunked=chunked)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def put(self, path: str, body: Any = b"", **headers: str) -> None:
        status, _, answer = self.ask("POST", path, body, **headers)
        assert status == 200, answer

    def get(self, path: str) -> bytes:
        status, _, answer = self.ask("GET", path)
        assert status == 200, answer
        return bytes(answer)

    def refused(self, status: int, method: str, path: str, body: Any = None, **headers: str) -> str:
        """Return the error of a request that must fail; it is one line."""
        found, _, answer = self.ask(method, path, body, **headers)
        text = str(json.loads(answer)["error"])
        assert found == status, (found, text)
        assert "\n" not in text
        return text


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


def create(host: Daemon, *, start: bool, **config: str) -> Files:
    name = unique("c")
    config = {key.replace("__", "."): value for key, value in config.items()}
    source = {"type": "image", "alias": "busybox"}
    host.request("POST", "/1.0/instances", {"name": name, "source": source, "start": start, "config": config})
    return Files(host, name)


@pytest.fixture(scope="module")
def running(host: Daemon) -> Files:
    return create(host, start=True)


@pytest.fixture(scope="module")
def stopped(host: Daemon) -> Files:
    return create(host, start=False)


@pytest.fixture(params=["running", "stopped", "privileged"])
def files(request: pytest.FixtureRequest, host: Daemon) -> Files:
    if request.param != "privileged":
        found: Files = request.getfixturevalue(request.param)
        return found
    return create(host, start=False, security__privileged="true")


def shell(files: Files, script: str) -> str:
    result, out, err = direct(files.daemon, files.name, ["sh", "-c", script])
    assert result["return"] == 0, (out, err)
    return out.decode()


def helpers() -> list[int]:
    """Return the pids of processes that serve files."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (directory / "comm").read_text() == "pylxc-files\n":
                found.append(int(directory.name))
    return found


def test_a_file(files: Files) -> None:
    files.put("/root/a", b"hello", uid="1000", gid="1001", mode="0640", type="file")
    status, headers, body = files.ask("GET", "/root/a")
    assert (status, body) == (200, b"hello")
    for prefix in ("x-lxd-", "x-incus-"):
        found = {key: headers[prefix + key] for key in ("uid", "gid", "mode", "type")}
        assert found == {"uid": "1000", "gid": "1001", "mode": "0640", "type": "file"}
        assert headers[prefix + "modified"].endswith(" +0000 UTC")
    assert headers["content-type"] == "application/octet-stream"
    on_disk = (files.rootfs / "root/a").stat()
    assert (on_disk.st_uid, on_disk.st_gid, on_disk.st_mode & 0o7777) == (1000, 1001, 0o640)

    status, head, body = files.ask("HEAD", "/root/a")
    assert (status, body, head["x-lxd-type"], head["content-length"]) == (200, b"", "file", "5")

    files.put("/root/a", b"new", uid="5", gid="5", mode="0777")
    files.put("/root/a", b" and more", write="append")
    status, headers, body = files.ask("GET", "/root/a")
    assert body == b"new and more"
    assert (headers["x-lxd-uid"], headers["x-lxd-gid"], headers["x-lxd-mode"]) == ("1000", "1001", "0640")

    assert files.ask("DELETE", "/root/a")[0] == 200
    assert "not found" in files.refused(404, "GET", "/root/a")
    assert files.ask("HEAD", "/root/a")[0] == 404
    files.refused(404, "DELETE", "/root/a")


def test_defaults_and_modes(files: Files) -> None:
    files.put("/root/b", b"")
    headers = files.ask("GET", "/root/b")[1]
    assert (headers["x-lxd-uid"], headers["x-lxd-gid"], headers["x-lxd-mode"]) == ("0", "0", "0644")
    for text, mode in (("0600", "0600"), ("384", "0600"), ("0o711", "0711"), ("0x1ff", "0777"), ("04755", "4755")):
        files.put("/root/m", b"x", mode=text)
        assert files.ask("GET", "/root/m")[1]["x-lxd-mode"] == mode
        files.ask("DELETE", "/root/m")
    for headers in (
        {"mode": "abc"},
        {"mode": "-1"},
        {"uid": "x"},
        {"uid": "1" * 5000},
        {"gid": "-5"},
        {"type": "pipe"},
        {"write": "over"},
    ):
        files.refused(400, "POST", "/root/m", b"x", **headers)
    files.refused(400, "POST", "", b"x")
    files.refused(404, "GET", "/root/m")
    files.ask("DELETE", "/root/b")


def test_directories(files: Files) -> None:
    files.put("/root/d", type="directory")
    files.put("/root/d/e", type="directory", uid="7", gid="8", mode="0711")
    files.put("/root/d/e", type="directory", mode="0700")
    files.put("/root/d/f", b"")
    status, headers, body = files.ask("GET", "/root/d")
    assert (status, headers["x-lxd-type"], headers["x-lxd-mode"]) == (200, "directory", "0750")
    assert headers["content-type"].startswith("application/json")
    answer = json.loads(body)
    assert (answer["type"], answer["metadata"]) == ("sync", ["e", "f"])
    headers = files.ask("GET", "/root/d/e")[1]
    assert (headers["x-lxd-uid"], headers["x-lxd-gid"], headers["x-lxd-mode"]) == ("7", "8", "0711")
    assert "not empty" in files.refused(400, "DELETE", "/root/d")
    files.refused(400, "POST", "/root/d", b"content")
    files.refused(409, "POST", "/root/d/f", type="directory")
    files.refused(404, "POST", "/root/none/x", b"content")
    files.refused(404, "POST", "/root/none/x", type="directory")
    for path in ("/root/d/f", "/root/d/e", "/root/d"):
        assert files.ask("DELETE", path)[0] == 200


def test_symbolic_links(files: Files) -> None:
    files.put("/root/l", b"../etc/./motd", type="symlink")
    files.put("/root/l", b"../etc/./motd", type="symlink")
    status, headers, body = files.ask("GET", "/root/l")
    assert (status, headers["x-lxd-type"], body) == (200, "symlink", b"/etc/motd")
    assert os.readlink(files.rootfs / "root/l") == "../etc/./motd"
    files.refused(409, "POST", "/root/l", b"/elsewhere", type="symlink")
    files.refused(400, "POST", "/root/l2", b"", type="symlink")
    files.put("/root/l", b"through the link")
    assert files.get("/etc/motd") == b"through the link"
    files.ask("DELETE", "/root/l")
    assert files.get("/etc/motd") == b"through the link"


def test_links_out_of_the_tree_stay_inside(files: Files, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    deep = "../" * 30
    for number, target in enumerate((str(secret), deep + str(secret), str(tmp_path), "/proc/1/root" + str(secret))):
        files.put(f"/root/out{number}", target.encode(), type="symlink")
    for number in range(4):
        link = f"/root/out{number}"
        for method, path, body in (("GET", f"{link}/secret", None), ("POST", f"{link}/secret", b"bad")):
            assert files.ask(method, path, body)[0] in (400, 403, 404)
        assert files.ask("POST", link, b"bad")[0] in (400, 403, 404)
        files.ask("DELETE", link)
    files.refused(404, "GET", deep + str(secret))
    assert secret.read_text() == "the host's"


def test_a_big_file_comes_and_goes_unharmed(files: Files) -> None:
    data = os.urandom(1 << 20) * 40 + b"odd"
    for body in (data, (data[i : i + 100_000] for i in range(0, len(data), 100_000))):
        files.put("/root/big", body)
        assert hashlib.sha256(files.get("/root/big")).digest() == hashlib.sha256(data).digest()
    files.ask("DELETE", "/root/big")
    until(lambda: not helpers(), "the end of the process")


def test_hard_links_and_mount_points_are_written_in_place(running: Files) -> None:
    shell(running, "echo old >/root/one; ln /root/one /root/two; touch /root/m; mount -o bind /root/one /root/m")
    running.put("/root/two", b"new")
    assert running.get("/root/one") == b"new"
    running.put("/root/m", b"mounted")
    assert running.get("/root/one") == b"mounted"
    shell(running, "umount /root/m; rm /root/one /root/two /root/m")


def test_mounts_of_the_guest_are_seen(running: Files) -> None:
    shell(running, "mkdir -p /mnt/t; mount -t tmpfs none /mnt/t")
    running.put("/mnt/t/x", b"in the guest's memory")
    assert shell(running, "cat /mnt/t/x") == "in the guest's memory"
    assert not (running.rootfs / "mnt/t/x").exists()
    shell(running, "umount /mnt/t")


def test_proc(running: Files) -> None:
    assert b"MemTotal" in running.get("/proc/meminfo")
    assert running.get("/proc/sys/kernel/hostname").decode().strip() == running.name
    # More than the kernel gives at a time.
    assert running.get("/proc/kallsyms").count(b"\n") == Path("/proc/kallsyms").read_bytes().count(b"\n")
    assert running.refused(403, "POST", "/proc/sys/kernel/panic", b"1")


def test_only_files_directories_and_links(running: Files) -> None:
    shell(running, "mkfifo /root/pipe; ln -s /dev/zero /root/zero")
    for path in ("/root/pipe", "/dev/null", "/dev/zero"):
        assert "no file" in running.refused(400, "GET", path)
        assert "no file" in running.refused(400, "POST", path, b"x")
    assert "no file" in running.refused(400, "POST", "/root/zero", b"x")
    assert running.ask("DELETE", "/root/pipe")[0] == 200
    running.ask("DELETE", "/root/zero")


def test_a_client_that_goes_away_leaves_nothing(files: Files) -> None:
    before = sorted(p.name for p in (files.rootfs / "root").iterdir())
    files.put("/root/kept", b"as it was")
    for path in ("/root/partial", "/root/kept"):
        for head in ("Content-Length: 10000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nfffff\r\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{files.daemon.dir}/unix.socket")
                client.sendall(f"POST {files.url(path)} HTTP/1.1\r\nHost: x\r\n{head}".encode() + b"x" * 300_000)
                until(helpers, "the process that takes it")
            until(lambda: not helpers(), "its end")
    assert files.get("/root/kept") == b"as it was"
    files.ask("DELETE", "/root/kept")
    assert sorted(p.name for p in (files.rootfs / "root").iterdir()) == before

    (files.rootfs / "root/large").write_bytes(bytes(64 << 20))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{files.daemon.dir}/unix.socket")
        client.sendall(f"GET {files.url('/root/large')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(100_000)
        until(helpers, "the process that sends it")
    until(lambda: not helpers(), "its end")
    files.ask("DELETE", "/root/large")


def test_one_connection_serves_many(files: Files) -> None:
    connection = UnixConnection(f"{files.daemon.dir}/unix.socket", 60)
    data = os.urandom(300_000)
    for number in range(5):
        connection.request("POST", files.url("/root/x"), data + bytes([number]))
        assert connection.getresponse().read()
        sock = connection.sock
        connection.request("GET", files.url("/root/x"))
        assert connection.getresponse().read() == data + bytes([number])
        assert connection.sock is sock
    connection.close()
    files.ask("DELETE", "/root/x")


# Trees.


def archive(members: list[tuple[str, Any]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar archive; a member's value is content, None for a directory, ("link", target) or a type."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, value in members:
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode = 1000, 1001, 0o750
            if value is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(value, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, value[1]
            elif isinstance(value, int):
                info.type = bytes([value])
            else:
                info.size = len(value)
            tar.addfile(info, io.BytesIO(value) if isinstance(value, bytes) else None)
    return out.getvalue()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tree_of_a_thousand_files(files: Files, form: int) -> None:
    long = "long-" * 40
    members: list[tuple[str, Any]] = [("t", None), (f"t/{long}é", b"named at length"), ("t/l", ("link", "x" * 200))]
    members += [(f"t/d{n % 10}/f{n}", f"content {n}".encode() * (n % 7)) for n in range(1000)]
    members.append(("t/big", os.urandom(3 << 20)))
    files.put("/root", archive(members, form), type="tree")
    for name, value in members:
        if isinstance(value, bytes):
            assert (files.rootfs / "root" / name).read_bytes() == value
    status = (files.rootfs / "root/t/d1/f1").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 1001, 0o750)

    code, headers, body = files.ask("GET", "/root/t", query="&tree=1")
    assert (code, headers["x-lxd-type"]) == (200, "tree")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        found = {m.name: tar.extractfile(m).read() if m.isreg() else m.linkname for m in tar}  # type: ignore[union-attr]
        assert tar.getmember("t/d1/f1").uid == 1000
    assert found.pop("t/l") == "x" * 200
    assert {n for n, v in members if isinstance(v, bytes)} == {n for n, v in found.items() if isinstance(v, bytes)}
    assert all(found[n] == v for n, v in members if isinstance(v, bytes))
    (files.rootfs / "root/t").rename(files.rootfs / f"root/{unique('t')}")


@pytest.mark.parametrize(
    "content",
    [
        b"no archive at all " * 100,
        archive([("a", b"x" * 100_000)])[:50_000],
        archive([("../../../up", b"x")]),
        archive([("a/../../up", b"x")]),
        archive([("dev", tarfile.CHRTYPE[0])]),
        b"",
    ],
    ids=["garbage", "cut off", "up", "up inside", "device", "empty"],
)
def test_bad_archives(files: Files, content: bytes) -> None:
    files.put("/root/bad", type="directory")
    assert "archive" in files.refused(400, "POST", "/root/bad", content, type="tree")
    assert list((files.rootfs / "root/bad").iterdir()) == []
    assert not (files.rootfs / "root/up").exists()
    files.ask("DELETE", "/root/bad")
    until(lambda: not helpers(), "the end of the process")


def test_a_tree_does_not_follow_links_of_its_own_outside(files: Files, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("the host's")
    files.put("/root/evil", type="directory")
    answer = files.ask("POST", "/root/evil", archive([("l", ("link", str(tmp_path))), ("l/x", b"bad")]), type="tree")
    assert answer[0] in (400, 404, 409)
    assert (tmp_path / "x").read_text() == "the host's"
    assert files.ask("GET", "/etc/passwd-none", query="&tree=1")[0] == 404


def test_a_file_of_a_far_future(running: Files) -> None:
    shell(running, "touch -d @300000000000 /dev/shm/far")
    status, headers, _ = running.ask("GET", "/dev/shm/far")
    assert (status, headers["x-lxd-modified"]) == (200, "9999-12-31 23:59:59 +0000 UTC")


def test_a_guest_that_swaps_its_links(running: Files, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("the host's")
    (source, stdin), (stdout, sink) = os.pipe(), os.pipe()
    loop = f"ln -sfn {tmp_path} /root/s/d; rm /root/s/d; mkdir /root/s/d; rmdir /root/s/d"
    swap = f"mkdir -p /root/s/real; while :; do {loop}; done"
    run = Direct(running.daemon, running.name, ["sh", "-c", swap])
    run.send_stdio(source, sink, sink)
    until((running.rootfs / "root/s/real").exists, "the guest's loop")
    for _ in range(60):
        running.ask("POST", "/root/s/d/x", b"bad")
        assert running.ask("GET", "/root/s/d/x")[2] != b"the host's"
    assert (tmp_path / "x").read_text() == "the host's"
    run.close()
    for fd in (source, stdin, stdout, sink):
        os.close(fd)


def test_events(running: Files) -> None:
    with unix_connect(f"{running.daemon.dir}/unix.socket", "ws://x/1.0/events?type=lifecycle") as events:
        running.put("/root/e", b"x")
        running.get("/root/e")
        running.ask("DELETE", "/root/e")
        found = [json.loads(events.recv(timeout=10))["metadata"] for _ in range(3)]
    assert [event["action"] for event in found] == [f"instance-file-{v}" for v in ("pushed", "retrieved", "deleted")]
    assert all(event["source"] == f"/1.0/instances/{running.name}" for event in found)


def test_many_at_once(files: Files) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                files.put(f"/root/p{number}", bytes([number]) * 100_000)
                assert files.get(f"/root/p{number}") == bytes([number]) * 100_000
        except (AssertionError, OSError, http.client.HTTPException) as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for number in range(8):
        files.ask("DELETE", f"/root/p{number}")
