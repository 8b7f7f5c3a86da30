"""LXD 5.0.2 of Debian 12 (package `lxd`) on a directory of its own, without systemd or the host's network.

LXD looks for bridges in /sys/class/net, so it needs a /sys of its network namespace; mounting one hides
/sys/fs/cgroup, which is therefore moved on top again. All of that is in a mount namespace that goes with the daemon.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.server import PRESEED, Server

_ENTER = """
saved=$(mktemp -d)
mount --rbind /sys/fs/cgroup "$saved"
mount -t sysfs sysfs /sys
mount --move "$saved" /sys/fs/cgroup
rmdir "$saved"
exec lxd --logfile "$LXD_DIR/lxd.log" --group root
"""


class Lxd(Server):
    """The reference."""

    def __init__(self) -> None:
        super().__init__("lxd", "/usr/bin/lxc", {"LXD_DIR": "DIR", "LXD_CONF": "DIR/client"})

    def start(self) -> None:
        """See `Server`."""
        self.spawn("unshare", "--mount", "--propagation", "slave", "sh", "-euc", _ENTER)
        subprocess.run(["lxd", "waitready", "--timeout", "60"], env=self.env, check=True)

    def preseed(self) -> None:
        """See `Server`."""
        subprocess.run(
            ["lxd", "init", "--preseed"], env=self.env, input=PRESEED.format(bridge="lxdbr0"), text=True, check=True
        )

    def monitor_pids(self, instance: str) -> list[int]:
        """See `Server`: liblxc's monitor renames itself `[lxc monitor] DIR NAME`."""
        wanted = f"[lxc monitor] {self.dir}/containers {instance}"
        pids = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    text = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                except (OSError, UnicodeDecodeError):
                    continue
                if text == wanted:
                    pids.append(int(entry))
        return pids

    def quit(self) -> None:
        """See `Server`."""
        subprocess.run(["lxd", "shutdown", "--timeout", "60"], env=self.env, check=False, timeout=120)
