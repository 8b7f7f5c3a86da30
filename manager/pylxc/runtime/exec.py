"""The supervisor of one `exec`: a child of the spawner that starts the process, watches it and tells its exit.

It stays on the host's side (its own namespaces and cgroup); what enters the container is `runtime.attach`. It talks to
one peer over a stream socket, JSON lines both ways: to the client itself (extension `pylxc_exec_upgrade`) or to the
daemon, which relays for websockets. So an `exec` of the first kind goes on while the daemon restarts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import stat
from typing import Any

from pylxc.errors import BadRequest
from pylxc.kernel import caps, namespaces, pidfd
from pylxc.kernel import fds as descriptors
from pylxc.runtime import attach, protocol

FDS_SECONDS = 10.0
CHUNK = 1 << 20
MAX_LINE = 4096
_LAST_MOVES = 16
"""More than enough for what a pipe can hold (CHUNK); a process that is left behind may never end writing."""


def main(payload: dict[str, Any], fds: list[int]) -> None:
    """Run one process inside a container; the spawner's child of kind "exec".

    Args:
        payload: `run_dir` of the container, `exec` (an ExecSpec as JSON), `record` (paths of two files that standard
            output and error are written to, or null), `keep` (true: the process goes on when the peer goes away).
        fds: socket for the result ({"return": N} or {"error": text}), stream socket of the peer, then standard input,
            output and error where the caller has them. Without them the peer sends them, or asks for a terminal.
    """
    caps.set_name("pylxc-exec")
    supervisor = Supervisor(payload, socket.socket(fileno=fds[1]))
    try:
        outcome = supervisor.run(fds[2:5])
    except (OSError, BadRequest) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        outcome = {"return": 1, "error": f"Failed entering the container: {text}"}
    supervisor.tell(outcome)
    with contextlib.suppress(OSError):  # the daemon may be gone; the client has been told
        protocol.send(protocol.adopt(fds[0]), outcome)


class Supervisor:
    """One process inside a container, and its peer."""

    def __init__(self, payload: dict[str, Any], peer: socket.socket) -> None:
        self.payload = payload
        self.spec: dict[str, Any] = payload["exec"]
        self.peer = peer
        self.buffer = b""
        self.pidfd = -1
        self.entering = 0
        self.failure: dict[str, Any] | None = None
        self.pumps: list[Pump] = []

    def run(self, stdio: list[int]) -> dict[str, Any]:
        """Start the process with `stdio` (see `main`), wait for its end and return the outcome."""
        entry = attach.Entry(self.payload["run_dir"])
        if self.payload.get("record"):
            stdio = self._record()
        elif not stdio:
            # For a terminal too the peer speaks first: a descriptor that is sent together with the answer to its
            # request is lost to a peer that reads that answer like any other.
            received = self._receive_stdio(0 if self.spec["interactive"] else 3)
            if received is None:
                return {"return": 1, "error": "The client went away"}
            stdio = received
        stdio = self._prepare(stdio)
        report, child_report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        report.setblocking(False)
        self.entering, self.pidfd = namespaces.clone(0, cgroup_fd=entry.cgroup_fd)
        if self.entering == 0:
            report.close()
            attach.run(entry, self.spec, stdio, child_report)
        child_report.close()
        for fd in stdio:
            os.close(fd)
        signal.signal(signal.SIGTERM, lambda *_: self.kill(signal.SIGKILL))
        return self._watch(report)

    def tell(self, message: dict[str, Any]) -> None:
        """Send the peer a line; a peer that is gone or does not read misses it."""
        with contextlib.suppress(OSError):
            self.peer.sendall(json.dumps(message).encode() + b"\n")

    def kill(self, number: int) -> None:
        """Send the process a signal; a process that has ended already is left alone."""
        pidfd.send_signal(self.pidfd, number)

    def _watch(self, report: socket.socket) -> dict[str, Any]:
        waiting = {report.fileno(), self.peer.fileno()}
        self._lines()
        while True:
            watched, entering = self.pidfd, self.entering
            ready = self._poll({*waiting, watched})
            if report.fileno() in ready and not self._hear_process(report):
                waiting.discard(report.fileno())
            if self.peer.fileno() in ready and not self._hear():
                waiting.discard(self.peer.fileno())
                if not self.payload.get("keep"):
                    self.kill(signal.SIGKILL)
            if watched in ready:
                # It may have said something and ended between the two looks of one poll.
                while self._hear_process(report):
                    pass
                if entering == self.entering:
                    return self._outcome()

    def _hear_process(self, report: socket.socket) -> bool:
        """Read what the entering process says; False when there is nothing (more)."""
        try:
            message, passed = descriptors.receive(report, MAX_LINE, 1)
        except BlockingIOError:
            return False
        if passed:
            self._send_pty(passed[0])
        elif message:
            said = json.loads(message)
            if "pid" in said:
                self._switch_to(said["pid"])
            else:
                self.failure = said
        return bool(message)

    def _switch_to(self, pid: int) -> None:
        """The command is there: it is what counts now. Its number is its own until this parent has waited for it."""
        os.waitpid(self.entering, 0)
        os.close(self.pidfd)
        self.entering = 0
        self.pidfd = os.pidfd_open(pid)

    def _poll(self, waiting: set[int]) -> set[int]:
        """Wait for one of `waiting`, pumping meanwhile; return those that are ready."""
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        pumps = {pump.waits_for[0]: pump for pump in self.pumps}
        for pump in self.pumps:
            poll.register(*pump.waits_for)
        ready = {fd for fd, _ in poll.poll()}
        for fd in ready & pumps.keys():
            if not pumps[fd].move():
                pumps[fd].close()
                self.pumps.remove(pumps[fd])
        return ready & waiting

    def _outcome(self) -> dict[str, Any]:
        exited = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        assert exited is not None
        for pump in self.pumps:
            pump.drain()
        if self.failure:
            return self.failure
        if self.entering:
            _kill_children()  # killed between making the command and telling of it
        killed = exited.si_code != os.CLD_EXITED
        return {"return": 128 + exited.si_status if killed else exited.si_status}

    def _hear(self) -> bool:
        """Read what the peer says; False when it has gone."""
        try:
            data = self.peer.recv(MAX_LINE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.buffer += data
        self._lines()
        return bool(data) and len(self.buffer) < MAX_LINE

    def _lines(self) -> None:
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            try:
                number = int(json.loads(line)["signal"])
            except (ValueError, OverflowError, RecursionError, KeyError, TypeError):
                continue
            if 0 < number < signal.NSIG:
                self.kill(number)

    def _send_pty(self, master: int) -> None:
        with contextlib.suppress(OSError):  # a peer that is gone shows at the next poll
            descriptors.send(self.peer, b'{"pty":true}\n', [master])
        os.close(master)

    def _receive_stdio(self, count: int) -> list[int] | None:
        """Wait for the peer's line `{"fds":COUNT}` and so many descriptors; None when it went away instead."""
        waiter = select.poll()
        waiter.register(self.peer, select.POLLIN)
        stdio: list[int] = []
        while b"\n" not in self.buffer:
            if not waiter.poll(FDS_SECONDS * 1000):
                return None
            data, passed = descriptors.receive(self.peer, MAX_LINE, 3)
            stdio += passed
            if not data:
                return None
            self.buffer += data
        _, self.buffer = self.buffer.split(b"\n", 1)
        if len(stdio) != count:
            raise BadRequest(f"{count} file descriptors were expected")
        return stdio

    def _record(self) -> list[int]:
        """Return standard input, output and error of a process whose output goes to files."""
        stdio = [os.open("/dev/null", os.O_RDONLY)]
        for path in self.payload["record"]:
            sink = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            source, inside = os.pipe()
            self.pumps.append(Pump(source, sink))
            stdio.append(inside)
        return stdio

    def _prepare(self, stdio: list[int]) -> list[int]:
        """Return descriptors that a hostile guest may hold.

        Anonymous pipes pass, open to whoever the process runs as (a script's `> /dev/stderr` opens it anew).
        Pipes that have a name on the host are relayed. /dev/null passes; inside, `attach` puts the container's own
        in its place. Anything else (a terminal: TIOCSTI; a directory or a socket: a way out) is refused.
        """
        pipe_device = os.fstat(_any_pipe()).st_dev
        return [self._prepare_one(number, fd, pipe_device) for number, fd in enumerate(stdio)]

    def _prepare_one(self, number: int, fd: int, pipe_device: int) -> int:
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == attach.DEV_NULL:
            return fd
        if not stat.S_ISFIFO(status.st_mode):
            raise BadRequest("only pipes and /dev/null can be passed to a container")
        inside = fd
        if status.st_dev != pipe_device:
            source, sink = os.pipe()
            self.pumps.append(Pump(fd, sink) if number == 0 else Pump(source, fd))
            inside = source if number == 0 else sink
        os.fchmod(inside, 0o666)
        # Whoever writes much into a pipe of 64 KiB spends half of the time on waking up who reads, and falling asleep.
        with contextlib.suppress(OSError):  # beyond what its owner may have
            if fcntl.fcntl(inside, fcntl.F_GETPIPE_SZ) < CHUNK:
                fcntl.fcntl(inside, fcntl.F_SETPIPE_SZ, CHUNK)
        return inside


class Pump:
    """Moves what comes out of one descriptor into another without looking at it; one of the two is a pipe."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._full = False

    @property
    def waits_for(self) -> tuple[int, int]:
        """The descriptor that holds it up, and the event to poll it for."""
        return (self._sink, select.POLLOUT) if self._full else (self._source, select.POLLIN)

    def move(self) -> bool:
        """Move what can be moved at once; False at the end."""
        try:
            moved = os.splice(self._source, self._sink, CHUNK, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            self._full = not self._full
            return True
        except OSError:
            return False
        self._full = False
        return moved > 0

    def drain(self) -> None:
        """Move what is there already and end; what others still hold open, or go on writing, is not waited for."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        for _ in range(_LAST_MOVES):
            if not poll.poll(0) or self._full or not self.move():
                break
        self.close()

    def close(self) -> None:
        """Close both ends."""
        os.close(self._source)
        os.close(self._sink)


def _kill_children() -> None:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        for pid in file.read().split():
            os.kill(int(pid), signal.SIGKILL)


def _any_pipe() -> int:
    """Return a pipe's end whose device number is that of every anonymous pipe."""
    source, sink = os.pipe()
    os.close(sink)
    return source
