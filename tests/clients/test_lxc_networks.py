"""`network` of Debian's `lxc`, and of `pylxc`, which says the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import Run
from tests.support.daemon import unique


@pytest.fixture
def network(run: Run) -> Iterator[str]:
    """Return a network of the test's own."""
    name = unique("n")[:10]
    run("network", "create", name, "ipv4.address=10.213.7.1/24", "ipv6.address=none")
    yield name
    run("network", "delete", name, check=False)


def shown(run: Run, name: str) -> dict[str, Any]:
    """Return a network as the API has it."""
    found: dict[str, Any] = json.loads(run("query", f"/1.0/networks/{name}").stdout)
    return found


def test_configuration(run: Run, network: str) -> None:
    assert run("network", "get", network, "ipv4.address").stdout == "10.213.7.1/24\n"
    run("network", "set", network, "ipv4.nat=true", "user.note=a b")
    run("network", "set", network, "dns.domain", "example.test")
    assert shown(run, network)["config"]["user.note"] == "a b"
    run("network", "unset", network, "user.note")
    text = run("network", "show", network).stdout
    assert 'ipv4.nat: "true"' in text
    assert "dns.domain: example.test" in text
    assert "user.note" not in text
    assert "used_by: []" in text
    run("network", "edit", network, input=text.replace("example.test", "other.test"))
    assert run("network", "get", network, "dns.domain").stdout == "other.test\n"
    for bad in ("ipv4.adress=1", "ipv4.address=10.1.1.1", "ipv4.nat=maybe", "bridge.mtu=1"):
        before = shown(run, network)
        failed = run("network", "set", network, bad, check=False)
        assert failed.returncode == 1
        assert len(failed.stderr.strip().splitlines()) == 1
        assert shown(run, network) == before


def test_list_info_and_leases(run: Run, network: str) -> None:
    table = run("network", "list").stdout
    row = next(line for line in table.splitlines() if network in line)
    for cell in ("bridge", "YES", "10.213.7.1/24", "none", "CREATED"):
        assert cell in row
    listed = {one["name"]: one for one in json.loads(run("network", "list", "--format=json").stdout)}
    assert listed[network]["managed"] is True
    assert listed["lo"]["managed"] is False
    text = run("network", "info", network).stdout
    for line in (f"Name: {network}", "MTU: 1500", "State: up", "Type: broadcast", "10.213.7.1/24", "Bridge:", "STP: "):
        assert line in text
    leases = run("network", "list-leases", network).stdout
    assert f"{network}.gw" in leases
    assert "GATEWAY" in leases
    assert "10.213.7.1" in leases
    assert run("network", "list-leases", "lo", check=False).returncode == 1
    assert run("network", "info", "nope", check=False).returncode == 1


def test_rename_and_delete(run: Run, network: str) -> None:
    new = unique("r")[:10]
    run("network", "rename", network, new)
    assert shown(run, new)["config"]["ipv4.address"] == "10.213.7.1/24"
    assert run("network", "show", network, check=False).returncode == 1
    assert "already exists" in run("network", "create", new, check=False).stderr
    assert run("network", "rename", new, "much-too-long-a-name", check=False).returncode == 1
    run("network", "delete", new)
    assert new not in run("network", "list").stdout


def test_attach_and_detach(run: Run, network: str, stopped: str) -> None:
    run("network", "attach", network, stopped, "lan", "eth7")
    device = json.loads(run("query", f"/1.0/instances/{stopped}").stdout)["devices"]["lan"]
    assert device == {"type": "nic", "network": network, "name": "eth7"}
    assert shown(run, network)["used_by"] == [f"/1.0/instances/{stopped}"]
    for command in (("delete", network), ("rename", network, "other7")):
        assert "in use" in run("network", *command, check=False).stderr
    run("start", stopped)
    assert "lan" not in run("list", stopped, "--format=csv").stdout
    run("stop", "--force", stopped)
    run("network", "detach", network, stopped)
    assert shown(run, network)["used_by"] == []
    assert run("network", "detach", network, stopped, check=False).returncode == 1


def test_profiles(run: Run, network: str) -> None:
    profile = unique("p")
    run("profile", "create", profile)
    run("network", "attach-profile", network, profile, "lan", "eth7")
    assert shown(run, network)["used_by"] == [f"/1.0/profiles/{profile}"]
    assert "in use" in run("network", "delete", network, check=False).stderr
    run("network", "detach-profile", network, profile, "lan")
    run("profile", "delete", profile)
    assert shown(run, network)["used_by"] == []
