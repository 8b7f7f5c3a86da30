"""Debian machines, driven through Runtime: systemd reaches `running` and powers off."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.runtime import TREES, UNPRIVILEGED, Host, debian_tree, inside
from tests.support.wait import until


@pytest.fixture
def machine(tmp_path: Path, need: Callable[..., None]) -> Iterator[Callable[[str], tuple[Host, Path]]]:
    """Return what makes a runtime and a copy of a Debian tree (beside the original, so that reflinks work)."""
    need("mmdebstrap")
    host = Host(tmp_path / "state")
    copies: list[Path] = []

    def make(suite: str) -> tuple[Host, Path]:
        source = debian_tree(suite)
        copy = TREES / f".copy-{suite}-{tmp_path.name}"
        shutil.rmtree(copy, ignore_errors=True)
        copies.append(copy)
        subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(copy)], check=True)
        return host, copy

    yield make
    host.close()
    for copy in copies:
        shutil.rmtree(copy)


@pytest.mark.parametrize("idmap", [UNPRIVILEGED, None], ids=["unprivileged", "privileged"])
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_systemd_reaches_running(machine: Callable[[str], tuple[Host, Path]], suite: str, idmap: object) -> None:
    host, tree = machine(suite)
    # networkd instead of ifupdown: it is the one that waits for udev where it believes that there is one.
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
    pid = host.start(tree, idmap=idmap)

    def state() -> str:
        found = inside(pid, "/bin/systemctl", "is-system-running").strip()
        return found if found in ("running", "degraded") else ""

    found = until(state, "systemd has started")
    failed = inside(pid, "/bin/systemctl", "--failed", "--no-legend", "--plain")
    assert (found, failed) == ("running", "")
    assert inside(pid, "/bin/systemd-detect-virt").strip() == "lxc"
    assert inside(pid, "/bin/systemctl", "is-active", "systemd-networkd").strip() == "active"
    assert inside(pid, "/bin/systemctl", "is-active", "systemd-udevd").strip() == "inactive"
    assert host.runtime.shutdown("c1", 30)
    assert host.end().reason == "halt"
