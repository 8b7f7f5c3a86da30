"""The monitor: one process per container, parent of its PID 1, that outlives the daemon.

It has a `starter` make the container, holds the console, answers on `control.sock`, and when PID 1 ends it records how
in `exit.json`, removes the control group and ends itself.

There may be hundreds of them: whatever a monitor touches of its memory is paid for each.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from pylxc.errors import Internal, PylxcError
from pylxc.kernel import caps, cgroup, pidfd
from pylxc.kernel import fds as descriptors
from pylxc.runtime import protocol, starter
from pylxc.runtime.console import Console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(payload: dict[str, Any], fds: list[int]) -> None:
    """Run a container from start to end; the spawner's child of kind "monitor".

    Args:
        payload: `spec` (ContainerSpec as JSON), `cgroup` (name of the group to make), `seccomp` (path of the compiled
            filter, or "").
        fds: the socket to the daemon: gets `{"ready": pid}` with pidfds of monitor and PID 1, says `{"op": "go"}`, gets
            `{"started": state}` or `{"error": ...}`, and is a control connection from then on.
    """
    caps.set_name(f"pylxc-{payload['spec']['key']}")
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
            status = starter.main(payload, fds[0], theirs)
        finally:
            os._exit(status)
    theirs.close()
    received = protocol.receive(ours)
    ours.close()
    if received is None:
        # The starter has undone what it did, unless it was killed.
        _remove_cgroup(payload["cgroup"])
        return
    os.waitpid(starter_pid, 0)
    monitor = Monitor(payload, protocol.adopt(fds[0]), *received)
    try:
        monitor.serve()
    except Exception as error:
        protocol.log(payload["spec"]["log_dir"], f"Failed: {error!r}")
        raise


class Monitor:
    """A running container's service and end."""

    def __init__(self, payload: dict[str, Any], daemon: socket.socket, facts: protocol.Message, fds: list[int]) -> None:
        """Take over from `starter.main`, which says what `facts` and `fds` are."""
        self._run_dir: str = payload["spec"]["run_dir"]
        self._cgroup: str = payload["cgroup"]
        self._connections = {daemon.fileno(): daemon}
        self._pid: int = facts["init"]
        self._pidfd, listener, master, self._slave, self._lock_fd = fds
        self._listener = protocol.adopt(listener)
        self._console = Console(master, facts["buffer"])
        self._killed = False

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
            protocol.tell(connection, protocol.describe_error(error))
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
        _remove_cgroup(self._cgroup)
        code = os.waitstatus_to_exitcode(status)
        ended = {"reason": _reason(code, killed=self._killed), "status": code, "at": time.time()}
        protocol.write_file(f"{self._run_dir}/exit.json", ended)


def _remove_cgroup(name: str) -> None:
    # Opened as late as this: it reads the host's whole mount table.
    group = cgroup.open_cgroup(name)
    group.kill()
    group.remove()


def _reason(code: int, *, killed: bool) -> str:
    """Return what the end of PID 1 means. reboot(2) in a pid namespace ends it by SIGHUP or SIGINT."""
    if code == -signal.SIGHUP:
        return "reboot"
    if killed:
        return "killed"
    return "halt" if code in (0, -signal.SIGINT) else "crash"
