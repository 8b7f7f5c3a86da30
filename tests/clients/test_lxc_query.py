"""`lxc query` and `lxc monitor`: the API as it is, and what happens."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.clients.conftest import Lxc
from tests.support.daemon import unique
from tests.support.terminal import Terminal


def query(lxc: Lxc, *args: str) -> Any:
    return json.loads(lxc("query", *args).stdout)


def test_reading(lxc: Lxc, guest: str) -> None:
    assert query(lxc, "/1.0")["api_version"] == "1.0"
    assert f"/1.0/instances/{guest}" in query(lxc, "/1.0/instances")
    assert f"/1.0/containers/{guest}" in query(lxc, "/1.0/containers")
    (found,) = query(lxc, f"/1.0/instances?recursion=2&filter=name%20eq%20{guest}")
    assert (found["name"], found["state"]["status"]) == (guest, "Running")
    raw = json.loads(lxc("query", "--raw", "/1.0/profiles/default").stdout)
    assert (raw["type"], raw["status_code"], raw["metadata"]["name"]) == ("sync", 200, "default")


def test_changing(lxc: Lxc, stopped: str) -> None:
    name = unique("p")
    lxc("query", "-X", "POST", "-d", json.dumps({"name": name, "config": {"user.a": "b"}}), "/1.0/profiles")
    assert query(lxc, f"/1.0/profiles/{name}")["config"] == {"user.a": "b"}
    lxc("query", "-X", "PATCH", "-d", '{"description": "x"}', f"/1.0/profiles/{name}")
    assert query(lxc, f"/1.0/profiles/{name}")["description"] == "x"
    lxc("query", "-X", "DELETE", f"/1.0/profiles/{name}")
    operation = query(lxc, "-X", "PUT", "-d", '{"action": "start"}', "--wait", f"/1.0/instances/{stopped}/state")
    assert operation["status"] == "Success"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["/1.0/instances/none"], "Instance not found"),
        (["/1.0/none"], "not found"),
        (["-X", "DELETE", "/1.0"], "not implemented"),
        (["-X", "POST", "-d", "{", "/1.0/profiles"], "Error:"),
        (["-X", "POST", "-d", "{}", "/1.0/profiles"], "No profile name provided"),
    ],
)
def test_refused(lxc: Lxc, args: list[str], text: str) -> None:
    result = lxc("query", *args, check=False)
    assert result.returncode == 1
    assert text in result.stderr


MONITORS = [
    (
        ["--type=lifecycle", "--pretty"],
        r"INFO.* Action: instance-updated, Source: /1\.0/instances/\S+, Requestor: unix/",
    ),
    (["--type=lifecycle"], r"(?m)^  action: instance-updated"),
    (["--type=operation", "--pretty"], r"INFO.* ID: [0-9a-f-]{36}, Class: websocket, Description: Executing command"),
    (["--type=logging", "--pretty"], r"DEBUG.* PATCH /1\.0/instances/\S+: 200"),
    (["--type=lifecycle", "--type=operation", "--format=json"], r'"type":"operation"'),
    (["--all-projects", "--format=json"], r'"type":"lifecycle"'),
]


@pytest.mark.parametrize(("args", "pattern"), MONITORS, ids=[" ".join(args) for args, _ in MONITORS])
def test_monitor(lxc: Lxc, lxc_env: dict[str, str], guest: str, args: list[str], pattern: str) -> None:
    """It listens from an unknown moment on, so something changes until that shows."""
    deadline = time.monotonic() + 30
    with Terminal(["lxc", "monitor", *args], lxc_env, columns=4000) as terminal:
        while not re.search(pattern, terminal.read(0.2).replace("\r", "")):
            assert time.monotonic() < deadline, terminal.seen
            lxc(
                "query",
                "-X",
                "PATCH",
                "-d",
                json.dumps({"config": {"user.now": unique("x")}}),
                f"/1.0/instances/{guest}",
            )
            lxc("exec", guest, "--", "true")
