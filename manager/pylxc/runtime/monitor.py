"""The monitor: one process per container, parent of its PID 1, that outlives the daemon.

It has a `starter` make the container, holds the console, answers on `control.sock`, and when PID 1 ends it records how
in `exit.json`, leaves the console's log in `console.log`, removes the control group and ends itself.

There may be hundreds of them: whatever a monitor touches of its memory is paid for each.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from pylxc.errors import Internal
from pylxc.kernel import cgroup, pidfd
from pylxc.kernel import fds as descriptors
from pylxc.runtime import protocol, starter
from pylxc.runtime.console import Console

_FACTS_BYTES = 16384
_FACTS_FDS = 5


def main(packet: bytes, fds: list[int]) -> None:
    """Run a container from start to end; the spawner's child of kind "monitor".

    Args:
        packet: for `protocol.read_packet`; the starter reads it, see there.
        fds: the socket to the daemon: gets `{"ready": pid}` with pidfds of monitor and PID 1, `{"built": true}` when
            the file system is whole, says `{"op": "go"}`, gets `{"started": state}` (or at any time `{"error": ...}`),
            and is a control connection from then on.
    """
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    descriptors.replace_stdio(null)
    os.close(null)
    ours, theirs = protocol.pair()
    starter_pid = os.fork()
    if starter_pid == 0:
        ours.close()
        status = 1
        try:
            status = starter.main(packet, fds, theirs)
        finally:
            os._exit(status)
    theirs.close()
    # From here on: no JSON, no prctl by way of ctypes, no open(). Pages that they touch would be this process's own.
    facts, container_fds = descriptors.receive(ours, _FACTS_BYTES, _FACTS_FDS)
    ours.close()
    os.waitpid(starter_pid, 0)
    if not facts:
        return
    key, pid, console_buffer, group, run_dir, log_dir = facts.decode().split("\0")
    comm = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(comm, b"pylxc-" + key.encode())
    os.close(comm)
    pidfd, listener, master, *_ = container_fds
    console = Console(master, int(console_buffer))
    monitor = Monitor(int(pid), pidfd, group, run_dir, log_dir, console)
    try:
        monitor.serve(protocol.adopt(listener), protocol.adopt(fds[0]))
    except Exception as error:
        protocol.log(log_dir, f"Failed: {error!r}")
        raise


class Monitor:
    """A running container's service and end."""

    def __init__(self, pid: int, pidfd: int, group: str, run_dir: str, log_dir: str, console: Console) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._cgroup = group
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._console = console
        self._connections: dict[int, socket.socket] = {}
        self._killed = False

    def serve(self, listener: socket.socket, daemon: socket.socket) -> None:
        """Hold the console and answer requests until PID 1 ends, then record the end."""
        console = self._console
        self._connections[daemon.fileno()] = daemon
        while True:
            poll = select.poll()
            for fd in (self._pidfd, listener.fileno(), *self._connections):
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
            if listener.fileno() in events:
                connection, _ = listener.accept()
                self._connections[connection.fileno()] = connection
            if self._pidfd in events:
                self._finish()
                return

    def _register_console(self, poll: select.poll) -> None:
        console = self._console
        writing = select.POLLOUT if console.wants_master_write else 0
        poll.register(console.master_fd, select.POLLIN | writing)
        if console.client is not None:
            reading = select.POLLIN if console.takes_input else 0
            writing = select.POLLOUT if console.wants_write else 0
            poll.register(console.client, reading | writing)

    def _serve_master(self, events: int) -> None:
        if events & select.POLLIN:
            self._console.read_master()
        if events & select.POLLOUT:
            self._console.write_master()

    def _serve_connection(self, connection: socket.socket) -> None:
        try:
            received = protocol.receive(connection)
            if received is None:
                del self._connections[connection.fileno()]
                connection.close()
                return
            message, fds = received
            descriptors.close(fds)
            self._answer(connection, message)
        except Exception as error:  # noqa: BLE001 (no request, of a later daemon's either, may end the container)
            protocol.tell(connection, protocol.describe_error(error))

    def _answer(self, connection: socket.socket, message: protocol.Message) -> None:
        """Do what a request asks and answer it; `hold` gives the pidfds of monitor and PID 1."""
        match message["op"]:
            case "hold":
                self._tell_state(connection)
                return
            case "kill":
                self._killed = True
                pidfd.send_signal(self._pidfd, signal.SIGKILL)
            case "console":
                with self._console.attach() as client:
                    protocol.tell(connection, {}, [client.fileno()])
                return
            case "console-resize":
                self._console.resize(message["width"], message["height"])
            case "console-log":
                file = os.memfd_create("console", os.MFD_CLOEXEC)
                os.write(file, self._console.ring.content())
                protocol.tell(connection, {}, [file])
                os.close(file)
                return
            case "console-clear":
                self._console.ring.clear()
            case other:
                raise Internal(f"Unknown request {other!r}")
        protocol.tell(connection, {})

    def _tell_state(self, connection: socket.socket) -> None:
        own_fd = os.pidfd_open(os.getpid())
        protocol.tell(connection, {"run_dir": self._run_dir}, [own_fd, self._pidfd])
        os.close(own_fd)

    def _finish(self) -> None:
        """PID 1 has ended: take its status, remove the control group, leave the record."""
        _, status = os.waitpid(self._pid, 0)
        while self._console.read_master():
            pass
        self._console.detach()
        code = os.waitstatus_to_exitcode(status)
        # Opened as late as this: it reads the host's whole mount table.
        group = cgroup.open_cgroup(self._cgroup)
        ended = {"reason": _reason(code, killed=self._killed), "status": code, "at": time.time()}
        protocol.write_file(f"{self._run_dir}/exit.json", ended | {"oom_kills": group.oom_kills()})
        self._keep_console_log()
        group.kill()
        group.remove()

    def _keep_console_log(self) -> None:
        """Leave what the console has shown to those who ask for it later."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(f"{self._log_dir}/console.log", flags, 0o600)
            os.write(fd, self._console.ring.content())
            os.close(fd)
        except OSError as error:
            protocol.log(self._log_dir, f"Failed keeping the console's log: {error}")


def _reason(code: int, *, killed: bool) -> str:
    """Return what the end of PID 1 means. reboot(2) in a pid namespace ends it by SIGHUP or SIGINT."""
    if code == -signal.SIGHUP:
        return "reboot"
    if killed:
        return "killed"
    return "halt" if code in (0, -signal.SIGINT) else "crash"
