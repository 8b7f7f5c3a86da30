"""Snapshots, copies, moves and images of instances by Debian's `lxc`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import Daemon, unique


@pytest.fixture(scope="module")
def host(pools_daemon: Daemon) -> Daemon:
    return pools_daemon


@pytest.fixture
def guest(host: Daemon) -> str:
    name = unique("g")
    host.lxc("launch", "busybox", name, "-s", "btrfs")
    return name


def write(host: Daemon, guest: str, text: str) -> None:
    host.lxc("exec", guest, "--", "sh", "-c", f"echo {text} > /note")


def note(host: Daemon, guest: str) -> str:
    return host.lxc("file", "pull", f"{guest}/note", "-").stdout.strip()


def test_snapshots(host: Daemon, guest: str) -> None:
    write(host, guest, "before")
    host.lxc("snapshot", guest, "s0")
    host.lxc("snapshot", guest, "--no-expiry")
    write(host, guest, "after")
    host.lxc("restore", guest, "s0")
    assert note(host, guest) == "before"
    shown = host.lxc("info", guest).stdout
    assert "| s0 " in shown
    assert shown.partition("Snapshots:")[2] == host.command("info", guest).stdout.partition("Snapshots:")[2]
    assert host.lxc("config", "show", f"{guest}/s0").stdout == host.command("config", "show", f"{guest}/s0").stdout
    host.lxc("config", "edit", f"{guest}/s0", input="expires_at: 2100-01-02T03:04:05Z\n")
    assert "2100/01/02" in host.lxc("info", guest).stdout
    host.command("config", "edit", f"{guest}/s0", input="expires_at: 2101-01-02T03:04:05Z\n")
    assert "2101/01/02" in host.lxc("info", guest).stdout
    host.lxc("rename", f"{guest}/snap0", f"{guest}/s1")
    host.lxc("snapshot", guest, "s1", "--reuse")
    host.lxc("delete", f"{guest}/s0")
    assert host.lxc("list", guest, "-f", "csv", "-c", "S").stdout == "1\n"


def test_copies_and_moves(host: Daemon, guest: str) -> None:
    write(host, guest, "first")
    host.lxc("snapshot", guest, "s0")
    write(host, guest, "second")
    whole, alone, old = unique("c"), unique("c"), unique("c")
    host.lxc("copy", guest, whole)
    host.lxc("copy", guest, alone, "--instance-only", "-s", "dir", "-c", "user.own=1")
    host.lxc("copy", f"{guest}/s0", old)
    assert [note(host, name) for name in (whole, alone, old)] == ["second", "second", "first"]
    write(host, guest, "third")
    host.lxc("copy", guest, whole, "--refresh")
    assert note(host, whole) == "third"
    host.lxc("move", whole, "-s", "dir")
    assert host.request("GET", f"/1.0/instances/{whole}")["expanded_devices"]["root"]["pool"] == "dir"
    host.lxc("move", whole, f"{whole}x")
    assert note(host, f"{whole}x") == "third"


def test_publishing(host: Daemon, guest: str, tmp_path: Path) -> None:
    write(host, guest, "here")
    alias, copy = unique("i"), unique("c")
    refused = host.lxc("publish", guest, check=False)
    assert refused.returncode == 1
    host.lxc("publish", guest, "--force", "--alias", alias, "description=Made by lxc")
    assert host.instances()[guest] == "Running"
    assert "description: Made by lxc" in host.lxc("image", "info", alias).stdout
    host.lxc("init", alias, copy)
    assert note(host, copy) == "here"
