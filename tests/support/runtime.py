"""A Runtime without a daemon, and small machines to run in it."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pylxc.paths import Paths
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spec import ContainerExit, ContainerSpec, IdMap
from tests.support.wait import until

UNPRIVILEGED = IdMap.single(1000000, 65536)
TREES = Path("/var/tmp/pylxc-trees")
_APPLETS = (
    "sh cat chmod dmesg echo grep head hostname id ip ls mkdir mount mknod poweroff readlink reboot sleep tr umount"
)


def busybox_tree(root: Path, script: str = "") -> Path:
    """Make a tree whose init is busybox and that runs `script` first, on the console; `ready` follows."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "mnt"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in _APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "etc/inittab").write_text("::sysinit:/bin/sh /script\n::respawn:/bin/sleep 100000\n")
    (root / "script").write_text(f"{script}\necho ready\n")
    return root


def debian_tree(suite: str) -> Path:
    """Return a Debian tree with systemd and networkd; made by mmdebstrap on the first call on this machine."""
    tree = TREES / suite
    if not tree.is_dir():
        TREES.mkdir(parents=True, exist_ok=True)
        partial = TREES / f".{suite}.{os.getpid()}"
        packages = "systemd-sysv,dbus,ifupdown,iproute2,libpam-systemd"
        argv = ["mmdebstrap", "--variant=important", f"--include={packages}", suite, str(partial)]
        subprocess.run([*argv, "http://deb.debian.org/debian"], check=True, capture_output=True)
        partial.rename(tree)
    return tree


class Host:
    """One Runtime on a state directory of its own; `ends` gets what `on_exit` reports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths(str(root))
        self.ends: queue.Queue[tuple[str, ContainerExit]] = queue.Queue()
        self.runtime = self._new()

    def _new(self) -> Runtime:
        runtime = Runtime(self.paths, lambda key, end: self.ends.put((key, end)))
        runtime.open()
        return runtime

    def restart(self, while_away: Callable[[], object] = lambda: None) -> None:
        """Do what the daemon's restart does to the runtime."""
        self.runtime.close()
        while_away()
        self.runtime = self._new()

    def spec(self, rootfs: Path, key: str = "c1", **changes: Any) -> ContainerSpec:
        """Return an unprivileged container of `rootfs`."""
        facts: dict[str, Any] = {
            "key": key,
            "hostname": key,
            "run_dir": self.paths.instance_run(key),
            "log_dir": self.paths.instance_logs(key),
            "rootfs": str(rootfs),
            "idmap": UNPRIVILEGED,
        }
        return ContainerSpec(**(facts | changes))

    def start(self, rootfs: Path, key: str = "c1", **changes: Any) -> int:
        """Start a container and return PID 1's pid."""
        return self.runtime.start(self.spec(rootfs, key, **changes), lambda _: None)

    def run(self, rootfs: Path, key: str = "c1", **changes: Any) -> str:
        """Start a busybox tree, wait for its script and return what that printed."""
        self.start(rootfs, key, **changes)
        return self.console(key, "ready")

    def console(self, key: str, text: str) -> str:
        """Return what the console has shown, once `text` is in it."""

        def look() -> str:
            shown = self.runtime.console_log(key).decode(errors="replace").replace("\r", "")
            return shown if text in shown else ""

        return until(look, f"{text!r} on the console of {key}")

    def end(self) -> ContainerExit:
        """Return the next end that is reported."""
        return self.ends.get(timeout=30)[1]

    def close(self) -> None:
        """Kill everything."""
        for key in list(self.runtime.keys()):
            self.runtime.kill(key)
        self.runtime.close()


def read_until(sock: socket.socket, text: bytes) -> bytes:
    """Read a stream until it has shown `text`."""
    sock.settimeout(20)
    seen = b""
    while text not in seen:
        data = sock.recv(4096)
        assert data, f"the stream ended after {seen!r}"
        seen += data
    return seen


def inside(pid: int, *argv: str) -> str:
    """Return what a harmless command prints in all namespaces of `pid`; it is NOT confined as the container is."""
    done = subprocess.run(["nsenter", "-t", str(pid), "-a", "--", *argv], capture_output=True, text=True, check=False)
    return done.stdout


def status(pid: int | str) -> dict[str, str]:
    """Return /proc/PID/status."""
    rows = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in rows}


def alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return status(pid)["State"][0] != "Z"
    return False
