"""The start of one container: a process that the monitor forks for it, so that the monitor itself stays small.

It makes the control group and PID 1 (as a child of the monitor), prepares what comes from the host, waits for the
daemon's "go" and hands over to the monitor. An error, or the end of the daemon before init runs, undoes everything.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket
import time

from pylxc.errors import BadRequest, Internal
from pylxc.kernel import cgroup, idmap, namespaces, pidfd, procfs, rlimits
from pylxc.kernel import fds as descriptors
from pylxc.runtime import devices, init, lean, nodes, protocol, rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pylxc.runtime.spec import ContainerSpec, IdRange

_NAMESPACES = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWNET
"""What PID 1 is born in; it makes its mount and cgroup namespaces itself, when there is what they start from."""


def main(packet: bytes, fds: list[int], monitor: socket.socket) -> int:
    """Start a container; return the status to exit with.

    Args:
        packet: `spec` (ContainerSpec as JSON), `cgroup` (name of the group to make), `seccomp` (path of the compiled
            filter, or "").
        fds: the socket to the daemon first, see `monitor.main`.
        monitor: on success gets what it needs to know with pidfd of PID 1, listener, console master and slave, lock.
    """
    payload, (daemon_fd, *_) = protocol.read_packet(packet, fds)
    daemon = protocol.adopt(daemon_fd)
    starter = Starter(payload, daemon, monitor)
    try:
        starter.run()
    except Exception as error:  # noqa: BLE001 (whatever it is, the daemon is told and nothing stays)
        protocol.tell(daemon, protocol.describe_error(error))
        protocol.log(payload["spec"]["log_dir"], f"Failed starting: {error}")
        starter.undo()
        return 1
    return 0


class Starter:
    """One start, step by step."""

    def __init__(self, payload: dict[str, Any], daemon: socket.socket, monitor: socket.socket) -> None:
        self._payload = payload
        self._spec: ContainerSpec = lean.read_spec(payload["spec"])
        self._cgroup = cgroup.open_cgroup(payload["cgroup"])
        self._daemon = daemon
        self._monitor = monitor
        self._pid = 0
        self._pidfd = -1
        self._lacking: dict[str, str] = {}

    def run(self) -> None:
        """Start the container; returns when init runs and the monitor has it.

        Raises:
            PylxcError: a step in the container failed, or the daemon has gone.
            OSError: a step outside failed.
        """
        lock_fd = os.open(f"{self._spec.run_dir}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._listen()
        self._make_cgroup()
        if rootfs.needs_stage(self._spec):
            rootfs.make_stage(self._spec.run_dir)
        child = self._clone()
        # Before the trees are opened: the daemon sets the network up meanwhile.
        monitor_fd = os.pidfd_open(os.getppid())
        protocol.send(self._daemon, {"ready": self._pid}, [monitor_fd, self._pidfd])
        self._hand_over_trees(child)
        _, (master, slave) = self._hear(child)
        protocol.send(self._daemon, {"built": True})
        self._hear(self._daemon)
        protocol.send(child, {"go": True})
        received = protocol.receive(child)
        if received is not None:
            raise protocol.rebuild_error(received[0])
        state = self._write_state()
        self._hand_over([self._pidfd, self._listener.fileno(), master, slave, lock_fd])
        protocol.tell(self._daemon, {"started": state})

    def _hand_over(self, fds: list[int]) -> None:
        """Give the monitor what it has to hold and the little that it has to know."""
        spec = self._spec
        facts = (spec.key, self._pid, spec.console_buffer, self._cgroup.name, spec.run_dir, spec.log_dir)
        descriptors.send(self._monitor, "\0".join(map(str, facts)).encode(), fds)

    def undo(self) -> None:
        """Take back what a failed start has made, the run directory too."""
        if self._pid:
            pidfd.send_signal(self._pidfd, signal.SIGKILL)
            pidfd.wait(self._pidfd)
        self._cgroup.kill()
        self._cgroup.remove()
        rootfs.remove_stage(self._spec.run_dir)
        for name in os.listdir(self._spec.run_dir):
            os.unlink(f"{self._spec.run_dir}/{name}")
        os.rmdir(self._spec.run_dir)

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory = os.open(self._spec.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Through the descriptor: a socket's path may have no more than 107 bytes.
        self._listener.bind(f"/proc/self/fd/{directory}/control.sock")
        os.close(directory)
        self._listener.listen(16)

    def _make_cgroup(self) -> None:
        spec = self._spec
        group = self._cgroup
        group.create()
        self._lacking = group.set_limits(vars(spec.limits))
        group.allow_devices(devices.rules(spec.devices))
        if spec.idmap is not None:
            group.delegate(nodes.host_id(spec.idmap.uids, 0), nodes.host_id(spec.idmap.gids, 0))

    def _clone(self) -> socket.socket:
        """Fork PID 1-to-be into its namespaces; return the socket to it."""
        spec = self._spec
        program = b""
        if self._payload["seccomp"]:
            with open(self._payload["seccomp"], "rb") as file:
                program = file.read()
        flags = _NAMESPACES | (namespaces.CLONE_NEWUSER if spec.idmap is not None else 0)
        flags |= namespaces.CLONE_NEWTIME if spec.time_namespace else 0
        entrances = self._cgroup.open_entrances()
        group_fd = os.open(self._cgroup.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        ours, theirs = protocol.pair()
        self._pid, self._pidfd = namespaces.clone(flags, cgroup_fd=group_fd, sibling=True)
        if self._pid == 0:
            init.run(spec, theirs, entrances, program)
        theirs.close()
        descriptors.close([group_fd, *entrances])
        if spec.idmap is not None:
            idmap.write_maps(self._pid, _ranges(spec.idmap.uids), _ranges(spec.idmap.gids))
        for name, soft, hard in spec.confinement.rlimits:
            # From outside: the container's root may not raise a hard limit.
            try:
                resource.prlimit(self._pid, rlimits.number(name), (soft, hard))
            except (OSError, ValueError) as error:
                raise BadRequest(f"The kernel refuses limits.kernel.{name}={soft}:{hard}: {error}") from error
        return ours

    def _hand_over_trees(self, child: socket.socket) -> None:
        userns_fd = -1
        if self._spec.idmap is not None:
            userns_fd = os.open(f"/proc/{self._pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        trees, staged = rootfs.prepare(self._spec, userns_fd)
        if userns_fd >= 0:
            os.close(userns_fd)
        protocol.tell(child, {"trees": list(trees), "staged": staged}, list(trees.values()))
        descriptors.close(trees.values())

    def _hear(self, sock: socket.socket) -> tuple[protocol.Message, list[int]]:
        """Return the next message of the child or the daemon; raises when it, or the daemon, has ended."""
        poll = select.poll()
        poll.register(self._daemon, 0)
        poll.register(sock, select.POLLIN)
        ended = any(events & select.POLLHUP for fd, events in poll.poll() if fd == self._daemon.fileno())
        received = None if ended else protocol.receive(sock)
        if received is None:
            raise Internal("The daemon or the container's first process ended during the start")
        if "error" in received[0]:
            raise protocol.rebuild_error(received[0])
        return received

    def _write_state(self) -> dict[str, Any]:
        state = {
            "spec": self._payload["spec"],
            "seccomp": self._payload["seccomp"],
            "init_pid": self._pid,
            "init_start_time": procfs.start_time(self._pid),
            "monitor_pid": os.getppid(),
            "started_at": time.time(),
            "boot_id": procfs.boot_id(),
            "lacking": self._lacking,
            "cgroups": {"name": self._cgroup.name, "unified": self._cgroup.path, "v1": self._cgroup.v1_paths},
        }
        protocol.write_file(f"{self._spec.run_dir}/state.json", state)
        return state


def _ranges(ranges: Iterable[IdRange]) -> list[idmap.Range]:
    return [(each.inside, each.outside, each.length) for each in ranges]
