"""The daemon's side of the spawner: start it, ask it for processes, hear of their ends."""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pylxc.errors import Internal, Unavailable
from pylxc.kernel import command, pidfd
from pylxc.kernel import fds as descriptors
from pylxc.runtime import protocol

log = logging.getLogger(__name__)

_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Isolated and without site: nothing but the standard library and this package gets into the runtime's processes.
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from pylxc.runtime.spawner import main; main(int(sys.argv[2]))"


class Child:
    """A process that the spawner made for us.

    Attributes:
        socket: our end of the socket that the child got as its first descriptor.
    """

    def __init__(self, kind: str, sock: socket.socket) -> None:
        self.kind = kind
        self.socket = sock
        self.pidfd = -1
        self._pid = 0
        self._known = threading.Event()
        self._ended = threading.Event()
        self._exit: int | None = None
        self._callbacks: list[Callable[[dict[str, Any]], None]] = []
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The host's pid; waits until the spawner has told it."""
        self._known.wait(10)
        return self._pid

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], list[int]] | None:
        """Return the child's next message with its descriptors (the caller's to close), None once it has closed.

        Raises:
            TimeoutError: nothing came in `timeout` seconds.
        """
        if timeout is not None:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            if not poll.poll(max(0, timeout) * 1000):
                raise TimeoutError(f"No message from the {self.kind} process in {timeout:g} s")
        return protocol.receive(self.socket)

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the end; return `{"exit": code or None, "result": last message or None}`.

        `code` is as os.waitstatus_to_exitcode gives it, None when nobody saw it (the spawner has died).

        Raises:
            TimeoutError: it is still running after `timeout` seconds.
            PylxcError: the child reported an error (`{"error": ...}` of `protocol.describe_error`).
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"The {self.kind} process is still running after {timeout:g} s")
        result: dict[str, Any] | None = None
        self.socket.setblocking(False)
        try:
            while (received := protocol.receive(self.socket)) is not None:
                result, fds = received
                descriptors.close(fds)
        except BlockingIOError:  # a process of the child's still holds the other end
            pass
        if result and isinstance(result.get("error"), dict):
            raise protocol.rebuild_error(result)
        return {"exit": self._exit, "result": result}

    def wait_ended(self, timeout: float | None) -> bool:
        """Wait for the end; return whether it came in `timeout` seconds."""
        return self._ended.wait(timeout)

    def on_done(self, callback: Callable[[dict[str, Any]], None]) -> None:
        """Call `callback({"exit": code or None})` from a runtime thread once the child has ended, or now."""
        with self._lock:
            if not self._ended.is_set():
                self._callbacks.append(callback)
                return
        callback({"exit": self._exit})

    def kill(self, number: int = 9) -> None:
        """Send the child a signal."""
        if not self.pid:
            return
        with self._lock:  # after the end the descriptor's number may be somebody else's
            if self.pidfd >= 0 and not self._ended.is_set():
                pidfd.send_signal(self.pidfd, number)

    def open_pidfd(self) -> int:
        """Return a descriptor of the process, the caller's to close.

        Raises:
            Internal: it has ended.
        """
        if self.pid:
            with self._lock:
                if self.pidfd >= 0 and not self._ended.is_set():
                    return os.dup(self.pidfd)
        raise Internal(f"The {self.kind} process has ended")

    def close(self) -> None:
        """Close our end of the socket."""
        self.socket.close()

    def started(self, pid: int, fd: int) -> None:
        """Note the process (called by `Spawner`)."""
        self._pid, self.pidfd = pid, fd
        self._known.set()

    def ended(self, code: int | None) -> None:
        """Note the end (called by `Spawner`)."""
        with self._lock:
            self._exit = code
            self._ended.set()
            callbacks, self._callbacks = self._callbacks, []
        self._known.set()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        for callback in callbacks:
            callback({"exit": code})


class Spawner:
    """The spawner process, started again whenever it has died. `handle` must be called when `fileno` is readable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: command.Running | None = None
        self._children: dict[int, Child] = {}
        self._count = 0
        self._started_at = 0.0
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        """What containers inherit, whatever the daemon raises its own limit to."""

    def start(self) -> socket.socket:
        """Start the process; return the socket that `handle` serves."""
        ours, theirs = protocol.pair()
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, _PACKAGE_ROOT, str(theirs.fileno())]
        with self._lock, theirs:
            self._process = command.start(argv, pass_fds=[theirs.fileno()])
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, self._descriptors)
            self._socket = ours
            self._count = 0
            self._started_at = time.monotonic()
        return ours

    def close(self) -> None:
        """Let the spawner end; the processes that it made go on."""
        with self._lock:
            sock, self._socket = self._socket, None
            process, self._process = self._process, None
        if sock is not None:
            # Shut down first: this wakes a thread that polls the socket.
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        if process is not None:
            process.wait(10)

    def spawn(self, kind: str, payload: dict[str, Any], fds: Sequence[int]) -> Child:
        """Ask for a process of `kind` (see `spawner.KINDS`); its first descriptor is a socket to us, then `fds`.

        Raises:
            Unavailable: the spawner is not running.
        """
        ours, theirs = protocol.pair()
        child = Child(kind, ours)
        with theirs, self._lock:
            if self._socket is None:
                ours.close()
                raise Unavailable("The runtime is not running")
            self._count += 1
            self._children[self._count] = child
            try:
                protocol.send(self._socket, payload, [theirs.fileno(), *fds], prefix=kind.encode() + b" ")
            except OSError as error:
                del self._children[self._count]
                self._count -= 1
                ours.close()
                raise Unavailable("The runtime is starting again", hint="try again") from error
        return child

    def handle(self, sock: socket.socket) -> bool:
        """Read one message of the spawner's; return False when it has died."""
        received = protocol.receive(sock)
        if received is None:
            return False
        message, fds = received
        if "pid" in message:
            self._children[message["id"]].started(message["pid"], fds[0])
        else:
            self._children.pop(message["id"]).ended(message["exit"])
        return True

    def died(self) -> list[Child]:
        """Bury the process; return the children that nobody will report any more."""
        with self._lock:
            sock, self._socket = self._socket, None
            process, self._process = self._process, None
            orphans, self._children = self._children, {}
            young = time.monotonic() - self._started_at < 1
        if sock is not None:
            sock.close()
        if process is not None:
            log.error("The spawner died with status %s", process.wait(10))
        if young:
            # It dies at once each time: do not burn the processor over it.
            time.sleep(1)
        return list(orphans.values())
