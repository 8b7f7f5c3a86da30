"""One running container as the daemon sees it, and what to do about one whose monitor has gone.

A monitor that is alive holds the lock on `lock` in the run directory; the kernel lets go of it with the monitor.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pylxc.errors import Internal, NotFound, PylxcError
from pylxc.kernel import cgroup, pidfd, procfs
from pylxc.kernel import fds as descriptors
from pylxc.kernel.memory_events import OomWatch
from pylxc.runtime import protocol
from pylxc.runtime.spawn import Child
from pylxc.runtime.spec import ContainerExit, IdMap

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""How long a monitor may take for a step of a start (an idmapped mount of a slow file system, a busy host)."""
_ANSWER_SECONDS = 10.0


class Container:
    """A running container: its state, its monitor's socket, pidfds of monitor and PID 1 (owned).

    Attributes:
        oom_kills: how many of its processes were killed for want of memory that are told of.
        oom_watch: tells of more; None where that cannot be.
    """

    def __init__(self, state: dict[str, Any], control: socket.socket, monitor_fd: int, init_fd: int) -> None:
        self.state = state
        self.control = control
        self.monitor_fd = monitor_fd
        self.init_fd = init_fd
        self.cgroup = cgroup.open_cgroup(state["cgroups"]["name"])
        self.oom_kills = self.cgroup.oom_kills()
        self.oom_watch = self._watch_oom()
        self.ended = threading.Event()
        self.exit: ContainerExit | None = None
        self._lock = threading.Lock()

    def _watch_oom(self) -> OomWatch | None:
        try:
            return self.cgroup.watch_oom()
        except OSError as error:
            log.warning("Not told when %s is out of memory: %s", self.cgroup.name, error)
            return None

    def ask(self, message: protocol.Message) -> list[int]:
        """Send the monitor a request, return the descriptors of its answer.

        Raises:
            NotFound: the monitor has gone.
            PylxcError: what it answered.
        """
        with self._lock:
            try:
                protocol.send(self.control, message)
                received = protocol.receive(self.control)
            except OSError:
                received = None
        if received is None:
            raise NotFound("The instance is not running")
        answer, fds = received
        if "error" in answer:
            raise protocol.rebuild_error(answer)
        return fds

    def signal(self, number: int) -> None:
        """Send PID 1 a signal; one that has ended misses it."""
        # The number of a closed descriptor may be that of another container's PID 1 already.
        with self._lock:
            if self.init_fd >= 0:
                pidfd.send_signal(self.init_fd, number)

    def open_init(self) -> int:
        """Return a copy of the pidfd of PID 1; raises OSError when that has been closed."""
        with self._lock:
            return os.dup(self.init_fd)

    def close(self) -> None:
        """Close what it owns; the container runs on."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # lets go whoever waits for an answer
        if self.oom_watch is not None:
            self.oom_watch.close()
        with self._lock:
            self.control.close()
            descriptors.close([self.monitor_fd, self.init_fd])
            self.monitor_fd = self.init_fd = -1


def cgroup_name(key: str, run_dir: str) -> str:
    """Return the name of a container's control group: its key, and which state directory it belongs to."""
    # Two daemons on one host may each have a container c1. FNV-1a: no import for four bytes.
    value = 0x811C9DC5
    for byte in os.path.dirname(run_dir).encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{key}.{value:08x}"


def monitor_is_alive(run_dir: str) -> bool:
    """Return whether a monitor holds the run directory's lock."""
    try:
        fd = os.open(f"{run_dir}/lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def await_monitor_end(run_dir: str, timeout: float) -> None:
    """Wait until no monitor holds the run directory.

    Raises:
        Internal: one still does after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while monitor_is_alive(run_dir):
        if time.monotonic() > deadline:
            raise Internal(f"The monitor of {run_dir!r} does not end")
        # A lock has no event to wait for without blocking for ever; this is the path after a daemon's crash.
        time.sleep(0.01)


def shake_hands(child: Child, attach_network: Callable[[int], None], enter: Callable[[int], None]) -> Container:
    """Have a new monitor start its container, and return that.

    Args:
        child: the monitor, see there for what is said; its socket becomes the container's.
        attach_network: see `Runtime.start`, as for `enter`.
        enter: likewise.

    Raises:
        PylxcError: a step failed, or what `attach_network` and `enter` raise.
    """
    ready, fds = _expect(child, "ready")
    try:
        try:
            attach_network(ready["ready"])
        except PylxcError:
            if pidfd.wait(fds[1], 0):  # PID 1 has ended, and the network with it: its monitor tells why
                _expect(child, "started")
            raise
        _expect(child, "built")
        enter(ready["ready"])
        protocol.tell(child.socket, {"op": "go"})
        started, _ = _expect(child, "started")
        return Container(started["started"], child.socket, *fds)
    except BaseException:
        descriptors.close(fds)
        raise


def _expect(child: Child, word: str) -> tuple[dict[str, Any], list[int]]:
    """Return the monitor's next message, which must have the key `word`.

    Raises:
        PylxcError: it reports an error, has died or does not answer.
    """
    try:
        received = child.receive(START_SECONDS)
    except TimeoutError as error:
        raise Internal("The container's monitor does not answer") from error
    if received is None:
        raise Internal("The container's monitor ended unexpectedly", hint="see the instance's log lxc.log")
    if "error" in received[0]:
        raise protocol.rebuild_error(received[0])
    if word not in received[0]:
        raise Internal(f"Expected {word!r} from the container's monitor")
    return received


def reconnect(run_dir: str) -> Container | None:
    """Find the container whose monitor is alive; None when the monitor is one that was starting it (it undoes that).

    The monitor may be of an earlier or a later version: what is not known is passed over.

    Raises:
        Internal: what it says lacks something without which it cannot be dealt with.
    """
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        control.settimeout(_ANSWER_SECONDS)
        # Through the descriptor: a socket's path may have no more than 107 bytes.
        control.connect(f"/proc/self/fd/{directory}/control.sock")
        protocol.send(control, {"op": "hold"})
        received = protocol.receive(control)
    except (OSError, Internal) as error:
        log.warning("No answer from the monitor of %s: %s", run_dir, error)
        received = None
    finally:
        os.close(directory)
    fds = received[1] if received is not None else []
    try:
        state = _read_json(f"{run_dir}/state.json")
        if received is None or state is None:
            control.close()
            return None
        if "error" in received[0]:
            raise ValueError(received[0]["error"])
        _check_state(state)
        monitor_fd, init_fd, *unknown = fds
        container = Container(state, control, monitor_fd, init_fd)
    except (KeyError, TypeError, ValueError) as error:
        control.close()
        descriptors.close(fds)
        raise Internal(
            f"The container in {run_dir!r} runs under a monitor that this version does not understand: {error!r}",
            hint=f"it is left alone; end it by the signal KILL to the process that holds {run_dir}/lock",
        ) from error
    descriptors.close(unknown)
    control.settimeout(None)
    return container


def _check_state(state: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError when a fact is missing that the daemon needs of a running container."""
    spec = state["spec"]
    for value, kind in ((state["init_pid"], int), (state["cgroups"]["name"], str), (spec["run_dir"], str)):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is no {kind.__name__}")
    state.setdefault("monitor_pid", 0)
    state.setdefault("started_at", 0.0)
    state.setdefault("lacking", {})
    spec.setdefault("rootfs", "")
    if spec.setdefault("idmap", None):
        IdMap.from_json(spec["idmap"])


def read_end(run_dir: str, told: int | None = None) -> ContainerExit | None:
    """Return how the container ended whose monitor has gone; None when it had not started in this boot of the host.

    `told` is how many of its `oom_kills` somebody has been told of, all of them when None.
    """
    state = _read_json(f"{run_dir}/state.json")
    if state is None or state.get("boot_id") != procfs.boot_id():
        return None
    # Without a record the monitor was killed: PID 1 got SIGKILL with it and nobody saw how it ended.
    recorded = _read_json(f"{run_dir}/exit.json") or {}
    kills = 0 if told is None else max(0, recorded.get("oom_kills", 0) - told)
    return ContainerExit(
        reason=recorded.get("reason", "killed"),
        status=recorded.get("status", -9),
        at=recorded.get("at", time.time()),
        oom_kills=kills,
    )


def remove_leftovers(key: str, run_dir: str) -> None:
    """Kill and remove what a monitor that has gone may have left: processes, control group, run directory.

    Raises:
        Internal: processes do not end.
    """
    group = cgroup.open_cgroup(cgroup_name(key, run_dir))
    try:
        group.kill()
        group.remove()
    except (TimeoutError, OSError) as error:
        raise Internal(f"Failed removing the control group of {key!r}: {error}") from error
    shutil.rmtree(run_dir, ignore_errors=True)


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            content: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError:
        log.warning("%s is damaged", path)
        return None
    return content
