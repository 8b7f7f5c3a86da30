from __future__ import annotations

import json
import os
import select
import subprocess
import time

import pytest

from tests.clients.conftest import Lxc
from tests.support.daemon import unique
from tests.support.wait import until


def status(lxc: Lxc, name: str) -> str:
    return str(lxc("list", f"^{name}$", "--format", "csv", "--columns", "s").stdout).strip()


def test_launch_list_info_stop_delete(lxc: Lxc, image: str) -> None:
    name = unique("l")
    out = lxc("launch", image, name).stdout
    assert f"Creating {name}" in out
    assert f"Starting {name}" in out
    assert lxc("list", name, "--format", "csv", "--columns", "nst").stdout == f"{name},RUNNING,CONTAINER\n"
    info = lxc("info", name).stdout
    assert f"Name: {name}\nStatus: RUNNING\nType: container\nArchitecture: x86_64\nPID: " in info
    assert "Memory usage:" in info
    assert "eth0:" in info
    lxc("stop", "--force", name)
    assert status(lxc, name) == "STOPPED"
    lxc("delete", name)
    assert lxc("list", name, "--format", "csv").stdout == ""


def test_list_as_a_table(lxc: Lxc, guest: str) -> None:
    lines = lxc("list", guest).stdout.splitlines()
    headings = [cell.strip() for cell in lines[1].strip("|").split("|")]
    assert headings == ["NAME", "STATE", "IPV4", "IPV6", "TYPE", "SNAPSHOTS"]
    assert lines[3].startswith(f"| {guest} ")


def test_list_as_json_has_state(lxc: Lxc, guest: str) -> None:
    (instance,) = json.loads(lxc("list", guest, "--format", "json").stdout)
    assert instance["status"] == "Running"
    assert instance["state"]["pid"] > 1
    assert instance["snapshots"] is None or instance["snapshots"] == []
    assert {a["family"] for a in instance["state"]["network"]["lo"]["addresses"]} >= {"inet"}


def test_guest_gets_an_address(lxc: Lxc, guest: str) -> None:
    def addresses() -> str:
        return str(lxc("list", guest, "--format", "csv", "--columns", "4").stdout).strip()

    assert "(eth0)" in until(addresses, "an address")


def test_stop_and_start_cleanly(lxc: Lxc, stopped: str) -> None:
    lxc("start", stopped)
    assert status(lxc, stopped) == "RUNNING"
    lxc("stop", stopped, "--timeout", "30")
    assert status(lxc, stopped) == "STOPPED"


def test_restart_is_another_boot(lxc: Lxc, stopped: str) -> None:
    lxc("start", stopped)
    lxc("exec", stopped, "--", "touch", "/run/this-boot")
    (before,) = json.loads(lxc("list", stopped, "--format", "json").stdout)
    lxc("restart", "--force", stopped)
    (after,) = json.loads(lxc("list", stopped, "--format", "json").stdout)
    assert after["state"]["pid"] != before["state"]["pid"]
    assert after["status"] == "Running"


def test_pause_and_resume(lxc: Lxc, stopped: str) -> None:
    lxc("start", stopped)
    lxc("pause", stopped)
    assert status(lxc, stopped) == "FROZEN"
    refused = lxc("exec", stopped, "--", "true", check=False)
    assert refused.returncode == 1
    lxc("start", stopped)
    assert status(lxc, stopped) == "RUNNING"


def test_rename(lxc: Lxc, stopped: str) -> None:
    other = unique("r")
    lxc("rename", stopped, other)
    assert status(lxc, other) == "STOPPED"
    lxc("start", other)
    assert lxc("exec", other, "--", "hostname").stdout.strip() == other
    lxc("delete", "--force", other)


def test_ephemeral_goes_when_it_stops(lxc: Lxc, image: str) -> None:
    name = unique("e")
    lxc("launch", image, name, "--ephemeral")
    lxc("stop", "--force", name)
    until(lambda: not status(lxc, name), "it goes")


def test_launch_with_config_and_profiles(lxc: Lxc, image: str) -> None:
    name = unique("k")
    lxc("launch", image, name, "--config", "user.colour=blue", "--profile", "default")
    assert lxc("config", "get", name, "user.colour").stdout == "blue\n"
    lxc("delete", "--force", name)


def test_server_picks_a_name(lxc: Lxc, image: str) -> None:
    out = lxc("init", image).stdout
    name = out.split("Instance name is:")[1].strip()
    assert status(lxc, name) == "STOPPED"
    lxc("delete", name)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["launch", "no-such-image", "x1"], "not found"),
        (["start", "no-such-instance"], "not found"),
        (["config", "get", "no-such-instance", "user.x"], "not found"),
        (["launch", "IMAGE", "bad_name"], "nvalid"),
        (["launch", "IMAGE", "GUEST"], "already exists"),
        (["delete", "GUEST"], "running"),
        (["start", "GUEST"], "already running"),
        (["config", "set", "GUEST", "no.such.key", "1"], "nknown"),
        (["config", "set", "GUEST", "limits.memory", "plenty"], "nvalid"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_exit_1(lxc: Lxc, image: str, guest: str, command: list[str], text: str) -> None:
    words = [{"IMAGE": image, "GUEST": guest}.get(word, word) for word in command]
    result = lxc(*words, check=False)
    assert result.returncode == 1
    # Where an operation fails after lxc has begun to watch it, `lxc start` adds a hint to the error.
    line = result.stderr.strip().split("\nTry `lxc info")[0]
    assert line.startswith("Error: ")
    assert text in line
    assert "\n" not in line


def test_monitor_shows_lifecycle(lxc: Lxc, lxc_env: dict[str, str], stopped: str) -> None:
    command = ["lxc", "monitor", "--type=lifecycle", "--format=json"]
    with subprocess.Popen(command, env=lxc_env, stdout=subprocess.PIPE, text=True) as monitor:
        try:
            assert monitor.stdout
            actions: list[str] = []
            # The subscription is made at an unknown moment: change something until it shows.
            deadline = time.monotonic() + 60
            while not actions:
                assert time.monotonic() < deadline
                lxc("config", "set", stopped, f"user.now={time.monotonic()}")
                actions += _events(monitor, 0.2)
            lxc("start", stopped)
            lxc("stop", "--force", stopped)
            while "instance-stopped" not in actions:
                assert time.monotonic() < deadline, actions
                actions += _events(monitor, 1)
        finally:
            monitor.kill()
    assert {"instance-updated", "instance-started", "instance-stopped"} <= set(actions)


def _events(monitor: subprocess.Popen[str], seconds: float) -> list[str]:
    assert monitor.stdout
    lines = b""
    while select.select([monitor.stdout], [], [], seconds)[0]:
        data = os.read(monitor.stdout.fileno(), 65536)
        lines += data
        if not data or data.endswith(b"\n"):
            break
    return [json.loads(line)["metadata"]["action"] for line in lines.splitlines() if line]


def test_version_query_and_operations(lxc: Lxc) -> None:
    assert "Server version:" in lxc("version").stdout
    assert json.loads(lxc("query", "/1.0").stdout)["api_version"] == "1.0"
    assert "ID" in lxc("operation", "list").stdout
    assert "https://" not in lxc("info").stdout.split("addresses:")[1].splitlines()[0]
