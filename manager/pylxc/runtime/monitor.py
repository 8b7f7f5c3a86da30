"""The monitor: one process per container, parent of its PID 1, that outlives the daemon.

It makes the control group and the namespaces, holds the console, answers on `control.sock`, and when PID 1 ends it
records how in `exit.json`, removes the control group and ends itself. Until the daemon has said "go" and init runs,
the end of the daemon undoes everything.

It lives as long as its container and there may be hundreds: whatever it imports or allocates is paid for each.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import time

from pylxc.errors import Internal, PylxcError
from pylxc.kernel import caps, cgroup, idmap, namespaces, pidfd, procfs
from pylxc.kernel import fds as descriptors
from pylxc.runtime import init, lean, protocol, rootfs
from pylxc.runtime.console import Console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pylxc.runtime.spec import ContainerSpec, IdRange

_DEVICES = (
    # Making nodes harms nobody (they cannot be opened) and archives need it.
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 10:229 rwm",
    "c 10:200 rwm",
    "c 136:* rwm",
)
"""/dev/{null,zero,full,random,urandom,tty,console,ptmx,fuse,net/tun} and pseudo-terminals."""

_NAMESPACES = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWNET
)
_TREES_PER_MESSAGE = 200


def main(payload: dict[str, Any], fds: list[int]) -> None:
    """Run a container from start to end; the spawner's child of kind "monitor".

    Args:
        payload: `spec` (ContainerSpec as JSON), `cgroup` (name of the group to make), `seccomp` (path of the compiled
            filter, or "").
        fds: the socket to the daemon: gets `{"ready": pid}` with pidfds of monitor and PID 1, says `{"op": "go"}`, gets
            `{"started": state}` or `{"error": ...}`, and is a control connection from then on.
    """
    spec = lean.read_spec(payload["spec"])
    caps.set_name(f"pylxc-{spec.key}")
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    descriptors.replace_stdio(null)
    os.close(null)
    monitor = Monitor(spec, payload, protocol.adopt(fds[0]))
    try:
        monitor.start()
    except (OSError, PylxcError) as error:
        monitor.undo()
        monitor.log(f"Failed starting: {error}")
        raise
    try:
        monitor.serve()
    except Exception as error:
        monitor.log(f"Failed: {error!r}")
        raise


class Monitor:
    """One container's start, service and end."""

    def __init__(self, spec: ContainerSpec, payload: dict[str, Any], daemon: socket.socket) -> None:
        self._spec = spec
        self._seccomp = payload["seccomp"]
        self._cgroup = cgroup.open_cgroup(payload["cgroup"])
        self._state: dict[str, Any] = {"spec": payload["spec"], "seccomp": payload["seccomp"]}
        self._connections: dict[int, socket.socket] = {daemon.fileno(): daemon}
        self._daemon = daemon
        self._pid = 0
        self._pidfd = -1
        self._killed = False

    def start(self) -> None:
        """Start the container; returns when init runs.

        Raises:
            PylxcError: a step in the container failed, or the daemon has gone.
            OSError: a step outside failed.
        """
        self._lock_fd = os.open(f"{self._spec.run_dir}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._listen()
        self._make_cgroup()
        child = self._clone()
        # Before the trees are opened: the daemon sets the network up meanwhile.
        protocol.send(self._daemon, {"ready": self._pid}, [self._own_fd, self._pidfd])
        self._hand_over_trees(child)
        _, (master, self._slave) = self._hear(child)
        self._console = Console(master, self._spec.console_buffer)
        self._hear(self._daemon)
        protocol.send(child, {"go": True})
        received = protocol.receive(child)
        if received is not None:
            raise protocol.rebuild_error(received[0])
        child.close()
        self._write_state()
        self._tell(self._daemon, {"started": self._state})

    def undo(self) -> None:
        """Take back what a failed start has made, the run directory too."""
        if self._pid:
            pidfd.send_signal(self._pidfd, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._cgroup.kill()
        self._cgroup.remove()
        run_dir = self._spec.run_dir
        for name in os.listdir(run_dir):
            os.unlink(f"{run_dir}/{name}")
        os.rmdir(run_dir)

    def log(self, text: str) -> None:
        """Add a line to the instance's log."""
        with open(f"{self._spec.log_dir}/lxc.log", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory = os.open(self._spec.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Through the descriptor: a socket's path may have no more than 107 bytes.
        self._listener.bind(f"/proc/self/fd/{directory}/control.sock")
        os.close(directory)
        self._listener.listen(16)
        self._own_fd = os.pidfd_open(os.getpid())

    def _make_cgroup(self) -> None:
        spec = self._spec
        group = self._cgroup
        group.create()
        group.set_limits(vars(spec.limits))
        rules = [f"{device.kind[0]} {device.major}:{device.minor} rwm" for device in spec.devices]
        group.allow_devices([*_DEVICES, *rules])
        if spec.idmap is not None:
            group.delegate(_root(spec.idmap.uids), _root(spec.idmap.gids))

    def _clone(self) -> socket.socket:
        """Fork PID 1-to-be into its namespaces; return the socket to it."""
        spec = self._spec
        program = b""
        if self._seccomp:
            with open(self._seccomp, "rb") as file:
                program = file.read()
        flags = _NAMESPACES | (namespaces.CLONE_NEWUSER if spec.idmap is not None else 0)
        flags |= namespaces.CLONE_NEWTIME if spec.time_namespace else 0
        entrances = self._cgroup.open_entrances()
        group_fd = os.open(self._cgroup.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        ours, theirs = protocol.pair()
        self._pid, self._pidfd = namespaces.clone(flags, cgroup_fd=group_fd)
        if self._pid == 0:
            init.run(spec, theirs, entrances, program)
        theirs.close()
        descriptors.close([group_fd, *entrances])
        if spec.idmap is not None:
            idmap.write_maps(self._pid, _ranges(spec.idmap.uids), _ranges(spec.idmap.gids))
        for name, soft, hard in spec.confinement.rlimits:
            # From outside: the container's root may not raise a hard limit.
            resource.prlimit(self._pid, getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
        return ours

    def _hand_over_trees(self, child: socket.socket) -> None:
        userns_fd = -1
        if self._spec.idmap is not None:
            userns_fd = os.open(f"/proc/{self._pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        trees = rootfs.prepare(self._spec, userns_fd)
        if userns_fd >= 0:
            os.close(userns_fd)
        names = list(trees)
        protocol.send(child, {"trees": names}, list(trees.values()))
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

    def _write_state(self) -> None:
        self._state |= {
            "init_pid": self._pid,
            "init_start_time": procfs.start_time(self._pid),
            "monitor_pid": os.getpid(),
            "started_at": time.time(),
            "boot_id": procfs.boot_id(),
            "cgroups": {"name": self._cgroup.name, "unified": self._cgroup.path, "v1": self._cgroup.v1_paths},
        }
        self._write("state.json", self._state)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """Write a file of the run directory so that readers see all of it or none."""
        path = f"{self._spec.run_dir}/{name}"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.rename(f"{path}.new", path)

    def serve(self) -> None:
        """Hold the console and answer requests until PID 1 ends, then record the end."""
        console = self._console
        while True:
            poll = select.poll()
            for fd in (self._pidfd, self._listener.fileno(), *self._connections):
                poll.register(fd, select.POLLIN)
            self._register_console(poll)
            events = dict(poll.poll())
            if console.master_fd in events:
                self._serve_master(events[console.master_fd])
            if console.client is not None and console.client.fileno() in events:
                console.read_client()
                console.write_client()
            for fd in [fd for fd in events if fd in self._connections]:
                self._serve_connection(self._connections[fd])
            if self._listener.fileno() in events:
                connection, _ = self._listener.accept()
                self._connections[connection.fileno()] = connection
            if self._pidfd in events:
                self._finish()
                return

    def _register_console(self, poll: select.poll) -> None:
        console = self._console
        writing = select.POLLOUT if console.wants_master_write else 0
        poll.register(console.master_fd, select.POLLIN | writing)
        if console.client is not None:
            writing = select.POLLOUT if console.wants_write else 0
            poll.register(console.client, select.POLLIN | writing)

    def _serve_master(self, events: int) -> None:
        if events & select.POLLIN:
            self._console.read_master()
        if events & select.POLLOUT:
            self._console.write_master()

    def _serve_connection(self, connection: socket.socket) -> None:
        try:
            received = protocol.receive(connection)
        except PylxcError as error:
            self._tell(connection, protocol.describe_error(error))
            return
        if received is None:
            del self._connections[connection.fileno()]
            connection.close()
            return
        message, fds = received
        descriptors.close(fds)
        try:
            self._answer(connection, message)
        except (OSError, PylxcError, KeyError) as error:
            self._tell(connection, protocol.describe_error(error))

    def _answer(self, connection: socket.socket, message: protocol.Message) -> None:
        """Do what a request asks and answer it: `state`, `kill`, `console`, `console-{resize,log,clear}`."""
        match message["op"]:
            case "state":
                self._tell(connection, {"state": self._state}, [self._own_fd, self._pidfd])
                return
            case "kill":
                self._killed = True
                pidfd.send_signal(self._pidfd, signal.SIGKILL)
            case "console":
                with self._console.attach() as client:
                    self._tell(connection, {}, [client.fileno()])
                return
            case "console-resize":
                self._console.resize(message["width"], message["height"])
            case "console-log":
                file = os.memfd_create("console", os.MFD_CLOEXEC)
                os.write(file, self._console.ring.content())
                self._tell(connection, {}, [file])
                os.close(file)
                return
            case "console-clear":
                self._console.ring.clear()
            case other:
                raise Internal(f"Unknown request {other!r}")
        self._tell(connection, {})

    def _tell(self, connection: socket.socket, message: protocol.Message, fds: list[int] | None = None) -> None:
        try:
            protocol.send(connection, message, fds or [])
        except (BrokenPipeError, ConnectionResetError):
            # Whoever asked has gone; that shows as end of file on the next turn.
            return

    def _finish(self) -> None:
        """PID 1 has ended: take its status, remove the control group, leave the record."""
        _, status = os.waitpid(self._pid, 0)
        while self._console.read_master():
            pass
        self._console.detach()
        self._cgroup.kill()
        self._cgroup.remove()
        code = os.waitstatus_to_exitcode(status)
        self._write("exit.json", {"reason": _reason(code, killed=self._killed), "status": code, "at": time.time()})


def _reason(code: int, *, killed: bool) -> str:
    """Return what the end of PID 1 means. reboot(2) in a pid namespace ends it by SIGHUP or SIGINT."""
    if code == -signal.SIGHUP:
        return "reboot"
    if killed:
        return "killed"
    return "halt" if code in (0, -signal.SIGINT) else "crash"


def _root(ranges: Iterable[IdRange]) -> int:
    """Return the host's id of the container's id 0."""
    for each in ranges:
        if each.inside == 0:
            return each.outside
    raise Internal("The id map has no id 0")


def _ranges(ranges: Iterable[IdRange]) -> list[idmap.Range]:
    return [(each.inside, each.outside, each.length) for each in ranges]
