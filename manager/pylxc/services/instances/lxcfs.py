"""LXCFS: files of /proc and /sys that tell an instance of its own CPUs and memory, where the host runs it.

It is a FUSE program, so it may be restarted, die or hang. An instance then starts with the kernel's own files, and
those that run are given the new LXCFS's, or the kernel's back.
"""

from __future__ import annotations

import logging
import select
import threading

from pylxc.errors import PylxcError
from pylxc.kernel.waiting import Waiting
from pylxc.paths import Paths
from pylxc.runtime import hotplug
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spec import Mount
from pylxc.services.instances.locks import InstanceLocks

log = logging.getLogger(__name__)

ROOT = "/var/lib/lxcfs"

_FILES = (
    *(f"proc/{name}" for name in ("cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime")),
    "sys/devices/system/cpu/online",
)
_PATIENCE_SECONDS = 1.0
_BUSY_SECONDS = 5.0


class Lxcfs:
    """The LXCFS of this host, and who sees it; thread-safe."""

    def __init__(self, paths: Paths, runtime: Runtime, locks: InstanceLocks) -> None:
        self._paths = paths
        self._runtime = runtime
        self._locks = locks
        self._probe: threading.Thread | None = None
        self._lock = threading.Lock()
        self._table = open("/proc/self/mountinfo", "rb")  # noqa: SIM115 - polled until `close`
        self._mounted = self._look()
        self._waiting = Waiting("lxcfs", self._watch, {self._table.fileno(): select.POLLPRI})

    def close(self) -> None:
        """Take no notice of it any more."""
        self._waiting.close()
        self._table.close()

    def mounts(self) -> tuple[Mount, ...]:
        """Return the mounts that an instance gets; none where LXCFS does not run or does not answer."""
        if not self._mounted or not self._answers():
            return ()
        return tuple(Mount(source=f"{ROOT}/{file}", target=f"/{file}", optional=True) for file in _FILES)

    def _answers(self) -> bool:
        with self._lock:
            if self._probe is not None and self._probe.is_alive():
                return False  # it hangs still
            answers = threading.Event()
            self._probe = threading.Thread(target=_ask, args=(answers,), name="lxcfs-probe", daemon=True)
            self._probe.start()
            self._probe.join(_PATIENCE_SECONDS)
            return answers.is_set()

    def _look(self) -> list[bytes]:
        """Return the ids of the mounts on `ROOT`; LXCFS itself is not asked."""
        self._table.seek(0)
        fields = (line.split(b" ", 5) for line in self._table.read().splitlines())
        return [line[0] for line in fields if line[4] == ROOT.encode()]

    def _watch(self, waiting: Waiting) -> None:
        while waiting.wait():
            before, self._mounted = self._mounted, self._look()
            if self._mounted != before:
                self._renew_all()

    def _renew_all(self) -> None:
        """Have all that run see the LXCFS that there is now, or none."""
        mounts = self.mounts()
        log.info("LXCFS has %s", "come or been restarted" if mounts else "gone")
        keys = self._runtime.keys()
        for key in keys:
            run_dir = self._paths.instance_run(key)
            try:
                with self._locks.hold(key, "update", wait=_BUSY_SECONDS):
                    hotplug.unplug(self._runtime.spawn, run_dir, [f"/{file}" for file in _FILES])
                    hotplug.plug(self._runtime.spawn, run_dir, mounts, ())
            except PylxcError as error:
                log.warning("Instance %s does not see the present LXCFS: %s", key, error)


def _ask(answers: threading.Event) -> None:
    try:
        with open(f"{ROOT}/proc/uptime", "rb") as file:
            if file.read():
                answers.set()
    except OSError as error:
        log.warning("LXCFS at %s does not answer: %s", ROOT, error)
