"""Images that are made of instances."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support import tree
from tests.support.daemon import ApiError, Daemon, unique


@pytest.fixture
def source(pools_daemon: Daemon) -> str:
    name = unique("s")
    pools_daemon.command("init", "busybox", name)
    os.mkdir(f"{root(pools_daemon, name)}/all")
    tree.build(f"{root(pools_daemon, name)}/all", files=20)
    return name


def root(daemon: Daemon, name: str) -> str:
    return f"{daemon.dir}/storage-pools/dir/containers/{name}/rootfs"


def without_nodes(described: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an archive has no room for (sockets), and what no image may bring along (device nodes)."""
    kept = dict(described)
    for path, entry in described.items():
        mode = int(entry["mode"], 8) if isinstance(entry, dict) else 0
        if stat.S_ISSOCK(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            del kept[path]
    return kept


@pytest.mark.parametrize("compression", ["bzip2", "gzip", "lzma", "none", "xz", "zstd"])
def test_an_image_holds_the_whole_tree(pools_daemon: Daemon, source: str, compression: str) -> None:
    alias = unique("i")
    argv = ["publish", source, "--alias", alias, "--compression", compression, "os=Test"]
    assert "fingerprint" in pools_daemon.command(*argv).stdout
    copy = unique("c")
    pools_daemon.command("init", alias, copy)
    expected = without_nodes(tree.describe(f"{root(pools_daemon, source)}/all"))
    found = tree.describe(f"{root(pools_daemon, copy)}/all")
    expected[""] = found[""] = expected["."] = found["."] = None  # its time changed with the nodes that were left out
    assert found == expected
    assert pools_daemon.request("GET", f"/1.0/instances/{copy}")["config"]["image.os"] == "Test"
    pools_daemon.command("start", copy)


def test_a_running_instance_and_a_snapshot(pools_daemon: Daemon, source: str) -> None:
    pools_daemon.command("start", source)
    pools_daemon.command("exec", source, "--", "sh", "-c", "echo first > /note")
    pools_daemon.command("snapshot", source, "s0")
    pools_daemon.command("exec", source, "--", "sh", "-c", "echo second > /note")
    refused = pools_daemon.command("publish", source, check=False)
    assert "Use --force" in refused.stderr
    for what, text in ((f"{source}/s0", "first\n"), (source, "second\n")):
        alias, copy = unique("i"), unique("c")
        pools_daemon.command("publish", what, "--alias", alias, "--force")
        pools_daemon.command("init", alias, copy)
        assert pools_daemon.command("file", "pull", f"{copy}/note", "-").stdout == text
        assert pools_daemon.instances()[source] == "Running"


def test_what_is_refused(pools_daemon: Daemon, source: str) -> None:
    images = len(pools_daemon.request("GET", "/1.0/images"))
    post = {"source": {"type": "instance", "name": source}}
    for body, status in (
        ({"source": {"type": "instance"}}, 400),
        ({"source": {"type": "instance", "name": "none"}}, 404),
        ({"source": {"type": "snapshot", "name": f"{source}/none"}}, 404),
        ({"source": {"type": "snapshot", "name": source}}, 400),
        ({**post, "compression_algorithm": "zip"}, 400),
        ({**post, "expires_at": "tomorrow"}, 400),
        ({**post, "aliases": [{"name": "busybox"}]}, 409),
    ):
        with pytest.raises(ApiError) as error:
            pools_daemon.request("POST", "/1.0/images", body)
        assert error.value.status == status, (body, error.value)
    assert len(pools_daemon.request("GET", "/1.0/images")) == images
    assert not [path for path in Path(pools_daemon.dir, "images").iterdir() if path.name.startswith(".")]
