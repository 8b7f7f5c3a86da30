"""Nothing that a client sends gives a 500, hangs, ends the daemon or leaves something behind.

The routes are those that the API has (`pylxc.api.app.endpoints`). `PYLXC_FUZZ=20` sends twenty times as much, other
requests each time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.daemon import POOL_AND_BRIDGE, ApiError, Daemon, UnixConnection
from tests.support.hostile import Request, requests

MORE = int(os.environ.get("PYLXC_FUZZ", "1"))
SECONDS = 30.0
"""How long an answer may take, on a busy machine."""

REAL = {
    "name": ["c1", "c1", "c1", "c1", "default", "p1", "busybox"],
    "snapshot": ["s0"],
    "profiles": ["default", "p1"],
    "pool": ["default"],
    "type": ["custom", "container", "image"],
    "volume": ["v1", "c1"],
    "network": ["pylxcbr0"],
    "file": ["lxc.log", "exec_x.stdout"],
    "backup": ["b0"],
    "address": ["10.0.0.1"],
    "alias": ["busybox"],
    "source": ["c1", "c1/s0", "v1", "default/v1"],
}
AVOID = ("PUT /internal/shutdown",)


def settled(examples: int) -> settings:
    """Return how a property is tried: the same requests in every run, unless there are to be more."""
    return settings(
        max_examples=examples * MORE,
        deadline=None,
        derandomize=MORE == 1,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink) if MORE == 1 else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def host(busybox_files: list[str]) -> Iterator[Daemon]:
    """Run a daemon with one of everything."""
    daemon = Daemon()
    try:
        daemon.start()
        daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_AND_BRIDGE))
        daemon.import_image("busybox", busybox_files)
        furnish(daemon)
        yield daemon
        clear(daemon)
    finally:
        problems = daemon.close()
    assert not problems, problems


def furnish(daemon: Daemon) -> None:
    """Make what `REAL` names, as far as it is not there."""
    wanted = [
        ("/1.0/profiles", "p1", {"name": "p1"}),
        ("/1.0/storage-pools/default/volumes/custom", "v1", {"name": "v1"}),
        ("/1.0/storage-pools/default/volumes/custom/v1/snapshots", "s0", {"name": "s0"}),
        ("/1.0/instances", "c1", {"name": "c1", "source": {"type": "image", "alias": "busybox"}}),
        ("/1.0/instances/c1/snapshots", "s0", {"name": "s0"}),
        ("/1.0/instances/c1/backups", "b0", {"name": "b0"}),
    ]
    for path, name, body in wanted:
        with contextlib.suppress(ApiError):
            if not any(url.endswith(f"/{name}") for url in daemon.request("GET", path)):
                daemon.request("POST", path, body)


def clear(daemon: Daemon) -> None:
    """Delete what the requests have made, through the API."""
    for operations in daemon.request("GET", "/1.0/operations?all-projects=true").values():
        for url in operations:
            with contextlib.suppress(ApiError):
                daemon.request("DELETE", url)
    for project in daemon.request("GET", "/1.0/projects?recursion=1"):
        where = f"?project={project['name']}"
        for instance in daemon.request("GET", f"/1.0/instances{where}&recursion=1"):
            if instance["status"] != "Stopped":
                daemon.request(
                    "PUT", f"/1.0/instances/{instance['name']}/state{where}", {"action": "stop", "force": True}
                )
            daemon.request(
                "PATCH", f"/1.0/instances/{instance['name']}{where}", {"config": {"security.protection.delete": ""}}
            )
            daemon.request("DELETE", f"/1.0/instances/{instance['name']}{where}")


def ask(daemon: Daemon, request: Request) -> tuple[int, bytes]:
    """Send a request; return status and body of the answer, which has to come in time."""
    connection = UnixConnection(f"{daemon.dir}/unix.socket", SECONDS)
    begin = time.monotonic()
    try:
        connection.putrequest(request.method, request.path)
        headers = {"Content-Length": str(len(request.body or b"")), **request.headers}
        for key, value in headers.items():
            connection.putheader(key, value)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # an answer may come before the body's end
            connection.endheaders(request.body)
        response = connection.getresponse()
        if response.status == 101:
            return 101, b""
        return response.status, response.read()
    except http.client.RemoteDisconnected:
        return 0, b""
    except TimeoutError:
        raise AssertionError(f"no answer within {time.monotonic() - begin:.1f} s: {request}") from None
    finally:
        connection.close()


def check(daemon: Daemon, request: Request) -> int:
    """Send a request and hold its answer against what every answer has to be; return its status."""
    status, body = ask(daemon, request)
    assert status in range(100, 500) or status in (501, 503), f"{status}: {body[:500]!r}: {request}"
    if request.method == "HEAD" or not body.startswith(b'{"type"'):
        return status
    envelope = json.loads(body)
    assert set(envelope) == {"type", "status", "status_code", "operation", "error_code", "error", "metadata"}
    if envelope["type"] == "error":
        assert envelope["error_code"] == status
        assert envelope["error"]
        assert "\n" not in envelope["error"]
    if envelope["type"] == "async":
        end(daemon, envelope["operation"], request)
    return status


def end(daemon: Daemon, operation: str, request: Request) -> None:
    """Wait for an operation, not for long; it may fail, but not for a reason that nobody has thought of."""
    found = told(daemon, operation)
    patience = 0 if found and found["class"] == "websocket" else 3
    for _ in range(2):
        found = told(daemon, f"{operation}/wait?timeout={patience}")
        if not found or found["status_code"] >= 200:
            break
        ask(daemon, Request("DELETE", operation))
        patience = 3
    if found:
        assert "Internal error" not in found["err"], f"{found['err']}: {request}"
        assert "\n" not in found["err"]


def told(daemon: Daemon, path: str) -> Any:
    """Return what a GET answers, None when that is an error."""
    status, body = ask(daemon, Request("GET", path))
    return json.loads(body)["metadata"] if status == 200 else None


@settled(500)
@given(request=requests(REAL, AVOID))
def test_any_request(host: Daemon, request: Request) -> None:
    if check(host, request) < 400 and request.method in ("DELETE", "PUT", "POST"):
        furnish(host)


def test_it_said_nothing_of_errors_within(host: Daemon) -> None:
    assert "Traceback" not in host.logs()
