from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.clients.conftest import Lxc
from tests.support.daemon import Daemon, unique


def test_file_push_pull_delete(lxc: Lxc, guest: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    source = tmp_path / "data"
    source.write_bytes(data)
    lxc("file", "push", str(source), f"{guest}/root/pushed", "--mode", "0640", "--uid", "3", "--gid", "4")
    assert lxc("exec", guest, "--", "stat", "-c", "%a %u %g", "/root/pushed").stdout == "640 3 4\n"
    lxc("file", "pull", f"{guest}/root/pushed", str(tmp_path / "pulled"))
    assert (tmp_path / "pulled").read_bytes() == data
    lxc("file", "delete", f"{guest}/root/pushed")
    missing = lxc("file", "pull", f"{guest}/root/pushed", "-", check=False)
    assert missing.returncode == 1


def test_file_trees(lxc: Lxc, guest: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/er/file").write_text("leaf")
    (tree / "link").symlink_to("deep/er/file")
    lxc("file", "push", "--recursive", "--create-dirs", str(tree), f"{guest}/srv/new")
    assert lxc("exec", guest, "--", "cat", "/srv/new/tree/deep/er/file").stdout == "leaf"
    assert lxc("exec", guest, "--", "readlink", "/srv/new/tree/link").stdout == "deep/er/file\n"
    back = tmp_path / "back"
    back.mkdir()
    lxc("file", "pull", "--recursive", f"{guest}/srv/new/tree", str(back))
    assert (back / "tree/deep/er/file").read_text() == "leaf"


def test_file_from_stdin_into_a_stopped_instance(lxc: Lxc, stopped: str) -> None:
    lxc("file", "push", "-", f"{stopped}/etc/greeting", input="hello\n")
    assert lxc("file", "pull", f"{stopped}/etc/greeting", "-").stdout == "hello\n"
    lxc("file", "edit", f"{stopped}/etc/greeting", input="good bye\n")
    assert lxc("file", "pull", f"{stopped}/etc/greeting", "-").stdout == "good bye\n"


def test_config_of_an_instance(lxc: Lxc, stopped: str) -> None:
    lxc("config", "set", stopped, "limits.memory=64MiB", "user.note=a b")
    assert lxc("config", "get", stopped, "limits.memory").stdout == "64MiB\n"
    shown = yaml.safe_load(lxc("config", "show", stopped).stdout)
    assert shown["config"]["user.note"] == "a b"
    assert shown["profiles"] == ["default"]
    assert shown["devices"] == {}
    assert "root" in yaml.safe_load(lxc("config", "show", "--expanded", stopped).stdout)["devices"]
    shown["config"]["user.note"] = "edited"
    shown["description"] = "edited too"
    lxc("config", "edit", stopped, input=yaml.safe_dump(shown))
    assert lxc("config", "get", stopped, "user.note").stdout == "edited\n"
    lxc("config", "unset", stopped, "user.note")
    assert lxc("config", "get", stopped, "user.note").stdout == "\n"


def test_memory_limit_is_real(lxc: Lxc, stopped: str) -> None:
    lxc("config", "set", stopped, "limits.memory=96MiB")
    lxc("start", stopped)
    (instance,) = json.loads(lxc("list", stopped, "--format", "json").stdout)
    assert _memory_limit(instance["state"]["pid"]) == 96 << 20
    lxc("config", "set", stopped, "limits.memory=80MiB")
    assert _memory_limit(instance["state"]["pid"]) == 80 << 20


def _memory_limit(pid: int) -> int:
    """Return the bytes that the kernel grants the cgroup of `pid`, or one above it."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    root, name = ("/sys/fs/cgroup", "memory.max") if unified else ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
    lines = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    group = next(path for _, controllers, path in lines if controllers == ("" if unified else "memory"))
    limits = []
    for directory in (Path(root + group), *Path(root + group).parents):
        if str(directory) == root:
            break
        text = (directory / name).read_text().strip()
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def test_devices_of_a_running_instance(lxc: Lxc, guest: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    tmp_path.chmod(0o755)
    lxc("config", "device", "add", guest, "data", "disk", f"source={tmp_path}", "path=/mnt/data")
    assert lxc("exec", guest, "--", "cat", "/mnt/data/file").stdout == "from the host"
    lxc("config", "device", "set", guest, "data", "path=/mnt/other")
    assert lxc("exec", guest, "--", "cat", "/mnt/data/file", check=False).returncode == 1
    assert lxc("exec", guest, "--", "cat", "/mnt/other/file").stdout == "from the host"
    lxc("config", "device", "add", guest, "more", "nic", "nictype=p2p", "name=more0")
    assert "more0" in json.loads(lxc("query", f"/1.0/instances/{guest}/state").stdout)["network"]
    lxc("config", "device", "remove", guest, "more", "data")
    assert "more0" not in json.loads(lxc("query", f"/1.0/instances/{guest}/state").stdout)["network"]
    assert lxc("exec", guest, "--", "cat", "/mnt/other/file", check=False).returncode == 1


def test_devices(lxc: Lxc, stopped: str, tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("from the host")
    tmp_path.chmod(0o755)
    lxc("config", "device", "add", stopped, "data", "disk", f"source={tmp_path}", "path=/mnt/data")
    assert lxc("config", "device", "list", stopped).stdout == "data\n"
    assert lxc("config", "device", "get", stopped, "data", "path").stdout == "/mnt/data\n"
    lxc("start", stopped)
    assert lxc("exec", stopped, "--", "cat", "/mnt/data/shared").stdout == "from the host"
    lxc("stop", "--force", stopped)
    lxc("config", "device", "remove", stopped, "data")
    assert lxc("config", "device", "list", stopped).stdout.split() == []


@pytest.fixture
def profile(lxc: Lxc) -> Iterator[str]:
    name = unique("p")
    lxc("profile", "create", name)
    yield name
    lxc("profile", "delete", name, check=False)


def test_profiles(lxc: Lxc, stopped: str, profile: str) -> None:
    lxc("profile", "set", profile, "user.colour", "green")
    assert lxc("profile", "get", profile, "user.colour").stdout == "green\n"
    assert profile in lxc("profile", "list", "--format", "csv").stdout
    lxc("profile", "add", stopped, profile)
    expanded = yaml.safe_load(lxc("config", "show", "--expanded", stopped).stdout)
    assert expanded["config"]["user.colour"] == "green"
    assert expanded["profiles"] == ["default", profile]
    shown = yaml.safe_load(lxc("profile", "show", profile).stdout)
    assert shown["used_by"] == [f"/1.0/instances/{stopped}"]
    assert lxc("profile", "delete", profile, check=False).returncode == 1
    lxc("profile", "remove", stopped, profile)
    lxc("profile", "assign", stopped, f"default,{profile}")
    lxc("profile", "assign", stopped, "default")
    shown["config"]["user.colour"] = "red"
    lxc("profile", "edit", profile, input=yaml.safe_dump(shown))
    other = unique("p")
    lxc("profile", "copy", profile, other)
    assert lxc("profile", "get", other, "user.colour").stdout == "red\n"
    lxc("profile", "rename", other, f"{other}x")
    lxc("profile", "unset", f"{other}x", "user.colour")
    lxc("profile", "device", "add", f"{other}x", "root", "disk", "path=/", "pool=default")
    lxc("profile", "delete", f"{other}x")
    assert other not in lxc("profile", "list", "--format", "csv").stdout


def test_images(lxc: Lxc, image: str, tmp_path: Path) -> None:
    fingerprint = lxc("image", "list", image, "--format", "json").stdout
    (entry,) = json.loads(fingerprint)
    assert entry["aliases"] == [{"name": image, "description": ""}]
    assert entry["type"] == "container"
    info = lxc("image", "info", image).stdout
    assert f"Fingerprint: {entry['fingerprint']}" in info
    assert "Architecture: x86_64" in info
    second = unique("alias")
    lxc("image", "alias", "create", second, entry["fingerprint"])
    assert second in lxc("image", "alias", "list", "--format", "csv").stdout
    lxc("image", "alias", "rename", second, f"{second}/with/slashes")
    lxc("image", "alias", "delete", f"{second}/with/slashes")
    lxc("image", "set-property", image, "colour", "yellow")
    assert lxc("image", "get-property", image, "colour").stdout == "yellow\n"
    lxc("image", "unset-property", image, "colour")
    (tmp_path / "out").mkdir()
    lxc("image", "export", image, f"{tmp_path}/out/")
    files = sorted((str(path) for path in (tmp_path / "out").iterdir()), key=lambda path: "/meta-" not in path)
    assert files
    refused = lxc("image", "import", *files, check=False)
    assert "already exists" in refused.stderr


def test_corrupt_image_leaves_nothing(lxc: Lxc, tmp_path: Path) -> None:
    before = lxc("image", "list", "--format", "csv").stdout
    (tmp_path / "bad.tar.gz").write_bytes(b"\x1f\x8b" + os.urandom(5000))
    result = lxc("image", "import", f"{tmp_path}/bad.tar.gz", check=False)
    assert result.returncode == 1
    assert lxc("image", "list", "--format", "csv").stdout == before


def test_server_network_and_storage(lxc: Lxc, guest: str) -> None:
    assert "default" in lxc("storage", "list", "--format", "csv").stdout
    assert guest in lxc("network", "list", "--format", "json").stdout
    lxc("config", "set", "user.note=server")
    assert lxc("config", "get", "user.note").stdout == "server\n"
    lxc("config", "unset", "user.note")


def test_warnings(lxc: Lxc, lxc_daemon: Daemon | None, stopped: str) -> None:
    if lxc_daemon is None:
        pytest.skip("LXD starts an instance without a word about limits that the host does not have")
    lxc("config", "set", stopped, "limits.hugepages.64KB=1MiB")
    lxc("start", stopped)
    listed = [line.split(",") for line in lxc("warning", "list", "-f", "csv", "-c", "utS").stdout.splitlines()]
    (uuid,) = [uuid for uuid, kind, status in listed if (kind, status) == ("Limit cannot be applied", "NEW")]
    assert yaml.safe_load(lxc("warning", "show", uuid).stdout)["entity_url"] == f"/1.0/instances/{stopped}"
    lxc("warning", "ack", uuid)
    assert uuid not in lxc("warning", "list", "-f", "csv").stdout
    assert uuid in lxc("warning", "list", "--all", "-f", "csv").stdout
    lxc("warning", "delete", uuid)
    assert lxc("warning", "show", uuid, check=False).returncode == 1
