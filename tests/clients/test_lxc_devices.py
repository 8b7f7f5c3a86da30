"""Devices of the host by Debian's `lxc`."""

from __future__ import annotations

from pathlib import Path

from tests.clients.conftest import Lxc
from tests.support.daemon import unique

CONTROL = "/dev/loop-control"


def inside(lxc: Lxc, guest: str, script: str) -> str:
    return str(lxc("exec", guest, "--", "sh", "-c", f"({script}) 2>&1 || :").stdout).strip()


def test_unix_char_hot_and_at_start(lxc: Lxc, guest: str) -> None:
    done = lxc(
        "config", "device", "add", guest, "control", "unix-char", f"source={CONTROL}", "path=/dev/given", "uid=5"
    )
    assert done.stdout == f"Device control added to {guest}\n"
    assert inside(lxc, guest, "stat -c '%F %u %g %a %t:%T' /dev/given") == "character special file 5 0 660 a:ed"
    assert inside(lxc, guest, ": < /dev/given && echo opened") == "opened"
    lxc("config", "device", "set", guest, "control", "mode=0600")
    assert inside(lxc, guest, "stat -c %a /dev/given") == "600"
    assert lxc("config", "device", "get", guest, "control", "mode").stdout == "0600\n"
    lxc("config", "device", "unset", guest, "control", "mode")
    lxc("restart", "--force", guest)
    assert inside(lxc, guest, "stat -c %a /dev/given; : < /dev/given && echo opened") == "660\nopened"
    lxc("config", "device", "remove", guest, "control")
    assert "No such file" in inside(lxc, guest, "ls /dev/given")
    done = lxc("config", "device", "add", guest, "bad", "unix-char", "path=/dev/nonexistent", check=False)
    assert done.returncode == 1
    assert lxc("config", "device", "list", guest).stdout.split() == []


def test_override_of_a_profiles_disk(lxc: Lxc, guest: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    tmp_path.chmod(0o755)
    profile = unique("p")
    lxc("profile", "create", profile)
    lxc("profile", "device", "add", profile, "data", "disk", f"source={tmp_path}", "path=/data", "propagation=rslave")
    lxc("profile", "add", guest, profile)
    assert inside(lxc, guest, "cat /data/file") == "from the host"
    lxc("config", "device", "override", guest, "data", "readonly=true", "path=/mine")
    assert "Read-only" in inside(lxc, guest, "touch /mine/x")
    assert "No such file" in inside(lxc, guest, "cat /data/file")
    lxc("config", "device", "remove", guest, "data")
    assert inside(lxc, guest, "cat /data/file") == "from the host"
    lxc("profile", "remove", guest, profile)
    lxc("profile", "delete", profile)
    assert "No such file" in inside(lxc, guest, "cat /data/file")
