"""Containers inside of an instance: Debian's podman, unprivileged, on `security.nesting`."""

from __future__ import annotations

import json

import pytest

from tests.support.daemon import POOL_ONLY, Daemon
from tests.support.images import image_files

BOX = """
mkdir -p /box/bin && cp /bin/busybox /box/bin/ && ln -s busybox /box/bin/sh
tar -C /box -c . | podman import --quiet - box
"""
RUN = """
podman run --rm --pids-limit=0 --volume /srv:/srv box \
  /bin/sh -c 'busybox id -u; busybox cat /proc/1/comm; busybox grep -c eth0: /proc/net/dev; echo written > /srv/file'
cat /srv/file
"""
"""No limit of processes: on the hybrid layout, as on CI, that controller is not a guest's to give."""


@pytest.mark.timeout(300)
def test_debians_podman_runs_containers(daemon: Daemon) -> None:
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    daemon.import_image("podman", image_files("podman"))
    daemon.command("launch", "podman", "p1", "--profile", "default", "--profile", "nesting")
    daemon.command("wait", "p1", "boot")
    daemon.command("exec", "p1", "--", "sh", "-euc", BOX, timeout=120)
    # Overlay and a bridge of its own, as podman has them by default.
    store = json.loads(daemon.command("exec", "p1", "--", "podman", "info", "--format", "json").stdout)["store"]
    assert store["graphDriverName"] == "overlay"
    assert daemon.command("exec", "p1", "--", "sh", "-euc", RUN, timeout=120).stdout.split() == [
        "0",
        "sh",
        "1",
        "written",
    ]
