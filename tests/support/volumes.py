"""What tests of custom volumes share."""

from __future__ import annotations

from typing import Any

from tests.support.daemon import Daemon

POOLS = ("btrfs", "dir")


def volume_url(pool: str, name: str) -> str:
    return f"/1.0/storage-pools/{pool}/volumes/custom/{name}"


def directory(host: Daemon, pool: str, name: str, snapshot: str = "") -> str:
    place = f"custom-snapshots/default_{name}/{snapshot}" if snapshot else f"custom/default_{name}"
    return f"{host.dir}/storage-pools/{pool}/{place}"


def run(host: Daemon, guest: str, script: str) -> str:
    return host.command("exec", guest, "--", "sh", "-c", script).stdout.strip()


def devices(host: Daemon, kind: str, name: str) -> Any:
    return host.request("GET", f"/1.0/{kind}/{name}")["devices"]


def snapshots(host: Daemon, pool: str, name: str) -> list[str]:
    found = host.request("GET", f"{volume_url(pool, name)}/snapshots?recursion=1")
    return [one["name"].partition("/")[2] for one in found]


def refused(host: Daemon, *words: str) -> str:
    """Run a command that has to fail with one line; return that."""
    done = host.command("storage", "volume", *words, check=False)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.strip().removeprefix("Error: ")
