"""A host whose mounts are shared, as systemd makes them: what is done with mounts must not depend on that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.daemon import POOL_ONLY, Daemon


def test_everything_with_mounts(make_daemon: Callable[..., Daemon], busybox_files: list[str], tmp_path: Path) -> None:
    daemon = make_daemon()
    daemon.start(shared_mounts=True)
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    daemon.import_image("busybox", busybox_files)
    (tmp_path / "file").write_text("shared\n")
    tmp_path.chmod(0o755)
    daemon.command("init", "busybox", "c1")
    daemon.command("file", "push", f"{tmp_path}/file", "c1/root/file")  # while it is stopped
    assert daemon.command("file", "pull", "c1/root/file", "-").stdout == "shared\n"
    daemon.command("start", "c1")  # applies templates
    daemon.command("config", "device", "add", "c1", "data", "disk", f"source={tmp_path}", "path=/mnt/data")
    assert daemon.command("exec", "c1", "--", "cat", "/root/file", "/mnt/data/file").stdout == "shared\n" * 2
    daemon.command("config", "device", "remove", "c1", "data")
    assert daemon.command("exec", "c1", "--", "ls", "/mnt/data").stdout == ""
    inside = daemon.command("exec", "c1", "--", "cat", "/proc/self/mountinfo").stdout
    assert str(tmp_path) not in inside
    daemon.command("restart", "c1", "--force")
    assert daemon.command("exec", "c1", "--", "cat", "/root/file").stdout == "shared\n"
