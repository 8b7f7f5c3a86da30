"""The cell in which archives are unpacked: what a program that has gone wrong finds there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The cell is made by a single-threaded root process, which a test run is not.
PROBE = """
import json, os, socket, sys
from pylxc.kernel import mount
from pylxc.runtime.sandbox import Cell, image_path

file, target, report = (int(word) for word in sys.argv[1:])

def attempt(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__ + ": " + error.strerror

def probe():
    found = {
        "root": sorted(os.listdir("/")),
        "pid": os.getpid(),
        "ids": [os.getuid(), os.getgid(), os.getgroups()],
        "links": [name for _, name in socket.if_nameindex()],
        "image": open(image_path(0)).read(),
        "fds": sorted(fd for fd in range(256) if attempt(lambda: os.fstat(fd) and "") == ""),
        "write image": attempt(lambda: os.open(image_path(0), os.O_WRONLY)),
        "write usr": attempt(lambda: os.open("/usr/planted", os.O_CREAT | os.O_WRONLY)),
        "write root": attempt(lambda: os.open("/planted", os.O_CREAT | os.O_WRONLY)),
        "device": attempt(lambda: os.mknod("/target/null", 0o20666, os.makedev(1, 3))),
        "up": sorted(os.listdir("/target/..")),
        "mount": attempt(lambda: mount.new("tmpfs")),
        "program": attempt(lambda: os.execv("/target/program", ["program"])),
    }
    open("/target/made", "w").close()
    os.chown("/target/made", 1000, 1001)
    with open("/target/large", "wb") as large:
        large.write(bytes(1 << 20))
    os.write(report, json.dumps(found).encode())
    os.write(told, b"written")
    os.read(gate, 1)
    return 7

ids = [(0, 1000000, 65536)]
(done, told), (gate, opened) = os.pipe(), os.pipe()
cell = Cell(ids, ids, files=[file], target_fd=target, keep=[report, told, gate], run=probe)
os.close(told)
os.read(done, 10)
print(cell.written())
os.write(opened, b"x")
sys.exit(cell.wait())
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    place = Path(f"/var/tmp/pt-sandbox-{os.getpid()}")
    place.mkdir(mode=0o700)
    try:
        (place / "target").mkdir()
        (place / "image").write_text("content")
        (place / "target/program").write_text("#!/bin/sh\n")
        (place / "target/program").chmod(0o755)
        file = os.open(place / "image", os.O_RDONLY)
        target = os.open(place / "target", os.O_RDONLY)
        read, write = os.pipe()
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(file), str(target), str(write)],
            pass_fds=[file, target, write],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
        )
        os.close(write)
        with open(read, "rb") as pipe:
            report = pipe.read()
        os.close(file)
        os.close(target)
        assert done.returncode == 7, done.stderr
        made = (place / "target/made").stat()
        return json.loads(report) | {"owner": [made.st_uid, made.st_gid], "written": int(done.stdout)}, place
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


def test_nothing_of_the_host_is_there(found: tuple[dict[str, object], Path]) -> None:
    report, _ = found
    assert set(report["root"]) <= {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "image0", "target"}  # type: ignore[call-overload]
    assert report["up"] == report["root"]
    assert report["pid"] == 1
    assert report["ids"] == [0, 0, []]
    assert report["links"] == ["lo"]
    assert len(report["fds"]) == 6  # type: ignore[arg-type]  # the three of every process, and what it was given


def test_only_the_target_can_be_written(found: tuple[dict[str, object], Path]) -> None:
    report, _ = found
    assert report["image"] == "content"
    for place in ("image", "usr", "root"):
        assert report[f"write {place}"] in ("OSError: Read-only file system", "PermissionError: Permission denied")
    assert report["owner"] == [1000, 1001]


def test_what_it_writes_is_counted(found: tuple[dict[str, object], Path]) -> None:
    assert 1 << 20 <= found[0]["written"] < 2 << 20  # type: ignore[operator]


def test_no_rights(found: tuple[dict[str, object], Path]) -> None:
    report, _ = found
    assert report["device"] == "PermissionError: Operation not permitted"
    assert report["mount"] == "PermissionError: fsopen: Operation not permitted"
    assert report["program"] == "PermissionError: Permission denied"
