"""What is cancelled ends, and leaves nothing. Downloads are in test_image_sources.py."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import unix_connect

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.wait import until
from tests.support.wire import ask, ended

SECONDS = 10.0
"""How long the end may take once it is asked for."""


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture(scope="module")
def big(host: Daemon) -> Iterator[str]:
    """Return a stopped instance that takes a while to be packed."""
    name = unique("c")
    host.request("POST", "/1.0/instances", {"name": name, "source": {"type": "image", "alias": "busybox"}})
    with open(f"{host.dir}/storage-pools/default/containers/{name}/rootfs/big", "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(48))
    yield name
    host.delete_all()


@pytest.fixture(scope="module")
def guest(host: Daemon) -> str:
    """Return a running instance."""
    name = unique("g")
    source = {"type": "image", "alias": "busybox"}
    host.request("POST", "/1.0/instances", {"name": name, "source": source, "start": True})
    return name


def begun(host: Daemon, path: str, body: Any) -> str:
    """Start something; return its operation."""
    answer = ask(host, "POST", path, body)
    assert answer.status == 202, answer.body
    return str(answer.json["operation"])


def cancelled(host: Daemon, operation: str) -> dict[str, Any]:
    """Cancel an operation; return it as it is in the end, which has to come soon."""
    begin = time.monotonic()
    answer = ask(host, "DELETE", operation)
    assert (answer.status, answer.type, answer.metadata) == (200, "sync", {})
    found: dict[str, Any] = ask(host, "GET", f"{operation}/wait?timeout=30").metadata
    assert found["status_code"] >= 200, found
    assert time.monotonic() - begin < SECONDS
    assert ask(host, "DELETE", operation).status == 400  # what is over cannot be cancelled
    return found


def files(host: Daemon) -> set[str]:
    """Return what lies about in the store of images, of backups and in the pool."""
    found = set()
    for folder in ("images", "backups", "storage-pools/default/.staging"):
        found |= {str(path) for path in Path(host.dir, folder).rglob("*") if not path.name.isdigit() or path.is_file()}
    return found


def workers(host: Daemon) -> list[str]:
    return [line for line in host.leaks.processes(host.netns).values() if "tar" in line or "xz" in line]


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        (
            "/1.0/images",
            {"source": {"type": "instance", "name": "BIG"}, "compression_algorithm": "xz"},
            "create_image_from_container_pack_progress",
        ),
        ("/1.0/instances/BIG/backups", {"name": "b", "compression_algorithm": "xz"}, "create_backup_progress"),
    ],
    ids=["publish", "backup"],
)
def test_packing(host: Daemon, big: str, path: str, body: dict[str, Any], key: str) -> None:
    images, before = host.request("GET", "/1.0/images"), files(host)
    operation = begun(host, path.replace("BIG", big), json.loads(json.dumps(body).replace("BIG", big)))
    until(lambda: key in (host.request("GET", operation)["metadata"] or {}), "progress")
    found = cancelled(host, operation)
    assert (found["status"], found["status_code"], found["err"]) == ("Cancelled", 401, "Operation was cancelled")
    assert host.request("GET", "/1.0/images") == images
    assert host.request("GET", f"/1.0/instances/{big}/backups") == []
    until(lambda: not workers(host), "the packers' end")
    assert files(host) == before
    host.request("PATCH", f"/1.0/instances/{big}", {"config": {"user.free": unique("x")}})  # nothing holds it any more


def sleeper(host: Daemon, guest: str, marker: str) -> bool:
    """Tell whether the command runs that has `marker` among its words."""
    return any(marker in line for line in host.leaks.processes(host.netns).values())


@pytest.mark.parametrize("record", [False, True])
def test_exec_without_websockets(host: Daemon, guest: str, record: bool) -> None:
    marker = unique("m")
    body = {"command": ["sh", "-c", f"sleep 1000; echo {marker}"], "record-output": record}
    operation = begun(host, f"/1.0/instances/{guest}/exec", body)
    until(lambda: sleeper(host, guest, marker), "the command")
    assert cancelled(host, operation)["metadata"]["return"] == 137
    until(lambda: not sleeper(host, guest, marker), "the command's end")


def test_exec_whose_websockets_do_not_come(host: Daemon, guest: str) -> None:
    marker = unique("m")
    body = {"command": ["sh", "-c", f"echo {marker}; sleep 1000"], "wait-for-websocket": True}
    operation = begun(host, f"/1.0/instances/{guest}/exec", body)
    begin = time.monotonic()
    assert cancelled(host, operation)["status"] == "Cancelled"
    assert time.monotonic() - begin < 4.5  # and not after the five seconds that they have
    assert not sleeper(host, guest, marker)


def test_exec_over_websockets(host: Daemon, guest: str) -> None:
    body = {"command": ["sh", "-c", "echo ready; sleep 1000; true"], "wait-for-websocket": True}
    answer = ask(host, "POST", f"/1.0/instances/{guest}/exec", body)
    operation, secrets = answer.json["operation"], answer.metadata["metadata"]["fds"]
    with ExitStack() as stack:
        sockets = {
            name: stack.enter_context(
                unix_connect(f"{host.dir}/unix.socket", f"ws://x{operation}/websocket?secret={secret}")
            )
            for name, secret in secrets.items()
        }
        assert sockets["1"].recv(20) == b"ready\n"
        assert cancelled(host, operation)["metadata"]["return"] == 137
        assert sockets["1"].recv(20) == ""  # the end of the stream, as always


def test_what_cannot_be_cancelled_says_so(host: Daemon, guest: str) -> None:
    answer = ask(host, "PUT", f"/1.0/instances/{guest}/state", {"action": "restart", "timeout": 20})
    refused = ask(host, "DELETE", answer.json["operation"])
    assert (refused.status, refused.json["error"]) == (400, "This operation can't be cancelled")
    assert ended(host, answer)["status"] == "Success"


def test_a_finished_operation_stays_for_five_seconds(host: Daemon, guest: str) -> None:
    answer = ask(host, "POST", f"/1.0/instances/{guest}/exec", {"command": ["true"]})
    operation = answer.json["operation"]
    assert ended(host, answer)["status"] == "Success"
    begin = time.monotonic()
    assert operation in host.request("GET", "/1.0/operations")["success"]
    until(lambda: ask(host, "GET", operation).status == 404, "its end")
    assert time.monotonic() - begin > 3.5
    assert operation not in str(host.request("GET", "/1.0/operations"))


def test_waiting_for_no_time_and_for_some(host: Daemon, guest: str) -> None:
    operation = begun(host, f"/1.0/instances/{guest}/exec", {"command": ["sleep", "1000"]})
    assert operation in host.request("GET", "/1.0/operations")["running"]
    for timeout, least in (("0", 0.0), ("1", 0.9)):
        begin = time.monotonic()
        answer = ask(host, "GET", f"{operation}/wait?timeout={timeout}")
        assert (answer.status, answer.metadata["status_code"]) == (200, 103)
        assert least <= time.monotonic() - begin < least + 10
    cancelled(host, operation)
