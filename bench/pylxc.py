"""pylxc of this checkout on a directory of its own."""

from __future__ import annotations

import compileall
import json
import subprocess
from pathlib import Path

from bench.server import PRESEED, Server

BIN = Path(__file__).resolve().parents[1] / ".venv/bin"
CODE = Path(__file__).resolve().parents[1] / "manager"


class Pylxc(Server):
    """What is measured."""

    def __init__(self) -> None:
        # As pip does when it installs; what was edited since has none, least of all with PYTHONDONTWRITEBYTECODE.
        compileall.compile_dir(CODE, quiet=2)
        super().__init__(
            "pylxc",
            str(BIN / "pylxc"),
            {"PYLXC_DIR": "DIR", "PYLXC_CONF": "DIR/client", "LXD_DIR": "DIR", "LXD_CONF": "DIR/lxc"},
        )

    def start(self) -> None:
        """See `Server`."""
        self.spawn(str(BIN / "pylxcd"), "--logfile", f"{self.dir}/pylxcd.log")
        self.run("admin", "waitready", "--timeout", "60")

    def preseed(self) -> None:
        """See `Server`."""
        self.run("admin", "init", "--preseed", stdin=PRESEED.format(bridge="pylxcbr0"))

    def monitor_pids(self, instance: str) -> list[int]:
        """See `Server`: the monitor is the parent of the container's PID 1."""
        state = json.loads(Path(f"{self.dir}/run/instances/{instance}/state.json").read_text())
        stat = Path(f"/proc/{state['init_pid']}/stat").read_text()
        return [int(stat.rsplit(")", 1)[1].split()[1])]

    def quit(self) -> None:
        """See `Server`."""
        subprocess.run([self.cli, "admin", "shutdown"], env=self.env, check=False, timeout=120)
