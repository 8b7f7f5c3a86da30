"""What a daemon may leave behind in the kernel: found by its directory's name, so that neighbours do not disturb."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from pylxc.runtime.container import cgroup_name
from tests.support.namespace import NetworkNamespace
from tests.support.wait import until

_STARTING_SECONDS = 20
"""How old a control group is at least that has lost its processes, rather than not got them yet."""


def _removed(group: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(group)
    return not os.path.exists(group)


def remove_dead_groups() -> None:
    """Remove control groups without processes: what daemons of one kind share and leave, and what killed runs left.

    They are pylxc's, and those of LXD's liblxc. A new one may be of a container that somebody else's daemon is starting
    just now, whose processes are yet to come: it is left to the next run.
    """
    newest = time.time() - _STARTING_SECONDS
    for name in ("pylxc", "lxc.pivot", "lxc.monitor.*", "lxc.payload.*"):
        for parent in (*glob.glob(f"/sys/fs/cgroup/{name}"), *glob.glob(f"/sys/fs/cgroup/*/{name}")):
            for top in (*glob.glob(f"{parent}/*/"), parent):
                groups = [path for path, _, _ in os.walk(top, topdown=False)]
                with contextlib.suppress(OSError):  # it is not there, or goes by itself
                    if all(os.stat(g).st_mtime < newest and not Path(g, "cgroup.procs").read_text() for g in groups):
                        for group in groups:
                            os.rmdir(group)


class Leaks:
    """Looks for what belongs to one state directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def mounts(self) -> list[str]:
        """Return the mount points below the directory, innermost first."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [p for p in reversed(points) if p.startswith(self.directory + "/")]

    def loops(self) -> list[str]:
        """Return the loop devices whose file is below the directory."""
        out = subprocess.run(
            ["losetup", "-l", "-n", "-O", "NAME,BACK-FILE"], check=True, capture_output=True, text=True
        )
        return [line.split()[0] for line in out.stdout.splitlines() if self.directory + "/" in line]

    def processes(self, netns: NetworkNamespace | None) -> dict[int, str]:
        """Return the processes that name the directory, live in the namespace, or in a control group of it."""
        found = {}
        inside = set(netns.pids()) if netns else set()
        for group in self.cgroups():
            with contextlib.suppress(OSError):
                inside |= {int(pid) for pid in Path(group, "cgroup.procs").read_text().split()}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                args = Path(f"/proc/{entry}/cmdline").read_bytes()
                text = args + Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if int(entry) in inside or os.fsencode(self.directory) in text:
                found[int(entry)] = args.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def cgroups(self) -> list[str]:
        """Return the control groups of the directory's containers, innermost first."""
        suffix = cgroup_name("", f"{self.directory}/run/instances/any")
        # glob and walk pass over what vanishes while they look; pathlib's glob does not.
        tops = [
            top
            for layout in (f"pylxc/*{suffix}", f"*/pylxc/*{suffix}")
            for top in glob.glob(f"/sys/fs/cgroup/{layout}")
        ]
        return sorted((path for top in tops for path, _, _ in os.walk(top)), reverse=True)

    def clean(self, netns: NetworkNamespace | None) -> list[str]:
        """Remove everything found and return a line on each."""
        problems = []
        for pid, args in self.processes(netns).items():
            problems.append(f"process {pid}: {args}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for point in self.mounts():
            problems.append(f"mount {point}")
            subprocess.run(["umount", "--lazy", point], check=False)
        for group in self.cgroups():
            problems.append(f"control group {group}")
            until(partial(_removed, group), f"{group} can be removed")
        # A new mount namespace holds copies of the host's mounts for a moment, and the loop device with them.
        with contextlib.suppress(AssertionError):
            until(lambda: not self.loops(), "loop devices go", timeout=30)
        for device in self.loops():
            problems.append(f"loop device {device}")
            subprocess.run(["losetup", "--detach", device], check=False)
        if netns:
            own = self.networks()
            problems += [f"interface {link}" for link in netns.links() if link.startswith("veth") or link in own]
            problems += [f"rules: {line}" for line in netns.rules()]
        return problems

    def networks(self) -> list[str]:
        """Return the names of the daemon's managed networks."""
        path = Path(self.directory, "networks")
        return os.listdir(path) if path.is_dir() else []
