"""The daemon's handle on everything that runs: start, stop, watch containers; ask the spawner for processes.

Monitors are the truth. A container's facts lie in its run directory (`state.json`), a monitor alive holds the lock on
`lock` there and answers on `control.sock`, and leaves `exit.json` behind when its container has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pylxc.errors import BadRequest, Conflict, Internal, NotFound
from pylxc.kernel import procfs
from pylxc.kernel.cgroup import Cgroup
from pylxc.kernel.memory_events import OomWatch
from pylxc.paths import Paths
from pylxc.runtime import container as containers
from pylxc.runtime import devices, hardening, protocol
from pylxc.runtime.container import Container
from pylxc.runtime.spawn import Child, Spawner
from pylxc.runtime.spec import ContainerExit, ContainerSpec, DeviceNode, IdMap, Limits

log = logging.getLogger(__name__)

KILL_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A container that runs: its facts at this moment. `pid` is PID 1's on the host, `started_at` a Unix time."""

    key: str
    pid: int
    monitor_pid: int
    status: str
    started_at: float
    idmap: IdMap | None
    rootfs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a container uses now: processes, nanoseconds of processor time, bytes; None is not known."""

    processes: int | None
    cpu_ns: int | None
    memory: int | None
    memory_peak: int | None
    swap: int | None
    swap_peak: int | None


class Runtime:
    """Containers of one state directory. Thread-safe; never forks and never enters a namespace itself."""

    def __init__(
        self,
        paths: Paths,
        on_exit: Callable[[str, ContainerExit], None],
        on_oom: Callable[[str, int], None] = lambda _key, _kills: None,
    ) -> None:
        """Call `on_exit(key, exit)` from a thread of its own when a container has ended and nothing of it is left.

        `on_oom(key, kills)` is called when processes were killed for want of memory; it must return at once.
        """
        self._paths = paths
        self._on_exit = on_exit
        self._on_oom = on_oom
        self._lock = threading.Lock()
        self._containers: dict[str, Container] = {}
        self._starting: set[str] = set()
        self._spawner = Spawner()
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._wake_fd = os.eventfd(0)
        self._closing = False

    def open(self) -> None:
        """Start the spawner and find what runs already; what ended meanwhile is reported to `on_exit`."""
        for name in ("instances", "seccomp"):
            os.makedirs(f"{self._paths.run}/{name}", mode=0o711, exist_ok=True)
        self._watch(self._wake_fd, lambda: None)
        self._watch_spawner()
        for key in sorted(os.listdir(f"{self._paths.run}/instances")):
            self._find(key)
        self._thread = threading.Thread(target=self._serve, name="runtime", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go of everything; containers and processes run on."""
        self._closing = True
        os.eventfd_write(self._wake_fd, 1)
        if self._thread is not None:
            self._thread.join()
        self._spawner.close()
        self._epoll.close()
        os.close(self._wake_fd)
        with self._lock:
            containers, self._containers = self._containers, {}
        for container in containers.values():
            container.close()

    def spawn(self, kind: str, payload: dict[str, Any], fds: Sequence[int] = ()) -> Child:
        """Have the spawner fork a process of `kind`: `KINDS[kind]`'s function, called with (payload, fds).

        The function gets copies of `fds` after a socket of its own, whose other end is `Child.socket`.

        Raises:
            Unavailable: the spawner is being restarted.
        """
        return self._spawner.spawn(kind, payload, fds)

    def start(
        self,
        spec: ContainerSpec,
        attach_network: Callable[[int], None],
        enter: Callable[[int], None] = lambda _pid: None,
    ) -> int:
        """Start a container and return PID 1's pid on the host.

        Args:
            spec: what to start.
            attach_network: called with PID 1's pid when its network namespace exists, and nothing of its files yet.
            enter: called with PID 1's pid when all its namespaces and mounts exist, before its init runs.

        Raises:
            Conflict: it is running or being started.
            PylxcError: a step failed, named in the message; nothing is left behind.
        """
        with self._lock:
            if spec.key in self._containers or spec.key in self._starting:
                raise Conflict("The instance is already running")
            self._starting.add(spec.key)
        try:
            self._clean(spec.key, spec.run_dir)
            os.makedirs(spec.run_dir, mode=0o700)
            os.makedirs(spec.log_dir, mode=0o700, exist_ok=True)
            protocol.begin_log(spec.log_dir)
            spec = replace(spec, confinement=hardening.hardened(spec.confinement, privileged=spec.idmap is None))
            program = hardening.seccomp_file(f"{self._paths.run}/seccomp", spec.confinement)
            payload = {"spec": spec.to_json(), "seccomp": program}
            payload["cgroup"] = containers.cgroup_name(spec.key, spec.run_dir)
            child = self._spawner.spawn("monitor", payload, ())
            try:
                container = containers.shake_hands(child, attach_network, enter)
                self._add(spec.key, container)
                return int(container.state["init_pid"])
            except BaseException:
                child.close()
                child.wait_ended(containers.START_SECONDS)
                containers.remove_leftovers(spec.key, spec.run_dir)
                raise
        finally:
            with self._lock:
                self._starting.discard(spec.key)

    def get(self, key: str) -> Running | None:
        """Return a running container's facts, None when it does not run."""
        container = self._containers.get(key)
        if container is None:
            return None
        state = container.state
        return Running(
            key=key,
            pid=state["init_pid"],
            monitor_pid=state["monitor_pid"],
            status="Frozen" if container.cgroup.is_frozen() else "Running",
            started_at=state["started_at"],
            idmap=IdMap.from_json(found) if (found := state["spec"]["idmap"]) else None,
            rootfs=state["spec"]["rootfs"],
        )

    def open_init(self, key: str, pid: int) -> int:
        """Return a pidfd of a container's PID 1, which is `pid` on the host; of one being started as well.

        Raises:
            BadRequest: it has ended.
        """
        try:
            container = self._containers.get(key)
            return os.pidfd_open(pid) if container is None else container.open_init()
        except OSError:
            raise BadRequest("The instance is not running") from None

    def is_held(self, key: str) -> bool:
        """Return whether a monitor lives in the run directory, be it one that could not be talked to."""
        return containers.monitor_is_alive(self._paths.instance_run(key))

    def keys(self) -> list[str]:
        """Return the keys of all running containers."""
        with self._lock:
            return sorted(self._containers)

    def shutdown(self, key: str, timeout: float | None) -> bool:
        """Ask PID 1 to power off and wait; return whether it ended in `timeout` seconds (None waits for ever).

        Raises:
            NotFound: it does not run.
            BadRequest: it is frozen.
        """
        container = self._running(key)
        # systemd blocks SIGRTMIN+3 (it reads signals from a descriptor); to other inits SIGPWR is the power failing.
        halt = signal.SIGRTMIN + 3
        # It may have ended just now.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            catches = procfs.handles_signal(container.state["init_pid"], halt)
            container.signal(halt if catches else signal.SIGPWR)
        return container.ended.wait(timeout)

    def reboot(self, key: str) -> None:
        """Ask PID 1 to reboot (SIGINT, as ctrl-alt-del does); its exit then says "reboot"."""
        self._running(key).signal(signal.SIGINT)

    def kill(self, key: str) -> None:
        """End the container at once and wait until it is gone.

        Raises:
            NotFound: it does not run.
            Internal: it does not end (a process hangs in the kernel).
        """
        container = self._running(key, frozen=True)
        container.ask({"op": "kill"})
        if not container.ended.wait(KILL_SECONDS):
            raise Internal(f"Instance {key!r} does not end", hint="a process of it hangs in the kernel")

    def freeze(self, key: str) -> None:
        """Stop all processes; returns when they have stopped.

        Raises:
            NotFound: it does not run.
            BadRequest: it is frozen already.
            Internal: some processes do not stop.
        """
        container = self._running(key, frozen=True)
        if container.cgroup.is_frozen():
            raise BadRequest("The instance is already frozen")
        try:
            container.cgroup.freeze()
        except TimeoutError as error:
            raise Internal(f"Failed freezing instance {key!r}: {error}") from error
        except FileNotFoundError:
            raise NotFound("The instance is not running") from None

    def unfreeze(self, key: str) -> None:
        """Let all processes go on; raises like `freeze`."""
        container = self._running(key, frozen=True)
        if not container.cgroup.is_frozen():
            raise BadRequest("The instance is not frozen")
        container.cgroup.unfreeze()

    def wait(self, key: str, timeout: float | None) -> ContainerExit | None:
        """Wait for the end of a container; None when it still runs after `timeout` seconds.

        Raises:
            NotFound: it does not run.
        """
        container = self._running(key, frozen=True)
        return container.exit if container.ended.wait(timeout) else None

    def stats(self, key: str) -> Stats:
        """Return what the container uses; raises NotFound when it does not run."""
        try:
            usage = self.cgroup(key).usage()
        except OSError:  # its control group has gone just now
            raise NotFound("The instance is not running") from None
        names = ("processes", "cpu_ns", "memory", "memory_peak", "swap", "swap_peak")
        return Stats(**{name: usage.get(name) for name in names})

    def set_limits(self, key: str, limits: Limits) -> None:
        """Change the limits of a running container.

        Raises:
            NotFound: it does not run.
            BadRequest: the kernel refuses a limit, or has none of a kind that the container was not without so far.
        """
        container = self._running(key, frozen=True)
        try:
            lacking = container.cgroup.set_limits(asdict(limits))
        except OSError as error:
            raise BadRequest(f"Failed setting {error.strerror}") from error
        if new := sorted(lacking.keys() - container.state["lacking"].keys()):
            raise BadRequest("; ".join(f"{each} cannot be applied: {lacking[each]}" for each in new))
        container.state["lacking"] = lacking

    def set_cpus(self, key: str, cpus: str | None) -> None:
        """Let a running container run on the CPUs of a cpuset list, on all when None; one that has ended does not.

        Raises:
            BadRequest: the kernel refuses.
        """
        try:
            if (container := self._containers.get(key)) is not None:
                container.cgroup.set_cpus(cpus)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadRequest(f"Failed setting {error.strerror}") from error

    def cgroup(self, key: str) -> Cgroup:
        """Return the control group of a running container; raises NotFound."""
        return self._running(key, frozen=True).cgroup

    def lacking(self, key: str) -> dict[str, str]:
        """Return the limits that a running container is without, see `kernel.cgroup.Lacking`."""
        return dict(self._running(key, frozen=True).state["lacking"])

    def allow_devices(self, key: str, before: Sequence[DeviceNode], after: Sequence[DeviceNode]) -> None:
        """Let a running container that was let use the devices `before` use the devices `after`.

        Raises:
            NotFound: it does not run.
            Internal: the kernel refuses.
        """
        group = self.cgroup(key)
        try:
            group.change_devices(devices.rules(before), devices.rules(after))
        except OSError as error:
            raise Internal(f"Failed changing the devices of instance {key!r}: {error.strerror}") from error

    def console_attach(self, key: str) -> socket.socket:
        """Return a stream socket to the console: bytes both ways; whoever was attached before is cut off."""
        (fd,) = self._running(key, frozen=True).ask({"op": "console"})
        return protocol.adopt(fd)

    def console_resize(self, key: str, width: int, height: int) -> None:
        """Set the console's size in characters."""
        self._running(key, frozen=True).ask({"op": "console-resize", "width": width, "height": height})

    def console_log(self, key: str) -> bytes:
        """Return what the console has shown, the newest part of it."""
        (fd,) = self._running(key, frozen=True).ask({"op": "console-log"})
        with open(fd, "rb") as file:
            file.seek(0)
            return file.read()

    def console_clear(self, key: str) -> None:
        """Forget what the console has shown."""
        self._running(key, frozen=True).ask({"op": "console-clear"})

    def _running(self, key: str, *, frozen: bool = False) -> Container:
        container = self._containers.get(key)
        if container is None:
            raise NotFound("The instance is not running")
        if not frozen and container.cgroup.is_frozen():
            raise BadRequest("The instance is frozen", hint="start it again first")
        return container

    def _clean(self, key: str, run_dir: str) -> None:
        """Remove what an earlier start left in the run directory; refuse while a monitor lives there."""
        if not os.path.isdir(run_dir):
            return
        if containers.monitor_is_alive(run_dir):
            raise Conflict("The instance is already running")
        containers.remove_leftovers(key, run_dir)

    def _find(self, key: str) -> None:
        """Take over the container of a run directory that was there before us, or bury it."""
        run_dir = self._paths.instance_run(key)
        try:
            if containers.monitor_is_alive(run_dir):
                container = containers.reconnect(run_dir)
                if container is not None:
                    self._add(key, container)
                    return
                containers.await_monitor_end(run_dir, containers.START_SECONDS)
            ended = containers.read_end(run_dir)
            containers.remove_leftovers(key, run_dir)
        except (Internal, OSError) as error:
            log.error("Failed taking over the container in %s: %s", run_dir, error)
            return
        except Exception:
            # One that is not understood must not lose us the others.
            log.exception("Failed taking over the container in %s", run_dir)
            return
        if ended is not None:
            self._report(key, ended)

    def _add(self, key: str, container: Container) -> None:
        with self._lock:
            self._containers[key] = container
        if (watch := container.oom_watch) is not None:
            self._watch(watch.fileno(), lambda: self._out_of_memory(key, container, watch), watch.events)
        # Last: it may have ended already, and what is watched is let go of then.
        self._watch(container.monitor_fd, lambda: self._ended(key, container))

    def _out_of_memory(self, key: str, container: Container, watch: OomWatch) -> None:
        if killed := watch.take():
            container.oom_kills += killed
            self._on_oom(key, killed)

    def _ended(self, key: str, container: Container) -> None:
        """The monitor has gone, so the container has: clean up and report (runtime thread)."""
        self._unwatch(container.monitor_fd)
        if container.oom_watch is not None:
            self._unwatch(container.oom_watch.fileno())
        run_dir = container.state["spec"]["run_dir"]
        ended = None
        try:
            ended = containers.read_end(run_dir, container.oom_kills)
            containers.remove_leftovers(key, run_dir)
        except (Internal, OSError) as error:
            log.error("Failed cleaning up after instance %s: %s", key, error)
        with self._lock:
            self._containers.pop(key, None)
        container.exit = ended
        container.ended.set()
        container.close()
        if ended is not None:
            if ended.oom_kills:
                self._on_oom(key, ended.oom_kills)
            self._report(key, ended)

    def _report(self, key: str, ended: ContainerExit) -> None:
        # A thread each: whoever hears of it may wait for locks, for other containers, for the runtime itself.
        threading.Thread(target=self._on_exit, args=(key, ended), name=f"exit-{key}", daemon=True).start()

    def _watch(self, fd: int, callback: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._watched[fd] = callback
        self._epoll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._watched[fd]

    def _serve(self) -> None:
        """Wait for the spawner's messages and the ends of monitors, until `close`."""
        while True:
            # One at a time: what is done about one may close another, whose number is somebody else's soon.
            for fd, _ in self._epoll.poll(maxevents=1):
                if self._closing:
                    return
                callback = self._watched.get(fd)
                if callback is not None:
                    self._call(callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            # This thread is the only one that hears of ends: no single one may end it.
            log.exception("Failed dealing with an event of the runtime")

    def _watch_spawner(self) -> None:
        sock = self._spawner.start()

        def hear() -> None:
            if self._spawner.handle(sock):
                return
            self._unwatch(sock.fileno())
            for child in self._spawner.died():
                self._watch_orphan(child)
            self._watch_spawner()

        self._watch(sock.fileno(), hear)

    def _watch_orphan(self, child: Child) -> None:
        """Wait for the end of a process whose spawner has died."""
        if child.pidfd < 0:
            child.ended(None)
            return

        def end() -> None:
            self._unwatch(child.pidfd)
            child.ended(None)

        self._watch(child.pidfd, end)
