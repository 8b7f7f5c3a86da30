"""The spawner: a single-threaded process beside the daemon that forks all processes of the runtime.

The daemon has threads, so it must neither fork nor enter namespaces. The spawner is a warm interpreter without
threads; a child forked from it starts in about a millisecond. It ends with its daemon, its children do not.

Requests are `{"id": N, "kind": K, "payload": {...}}` with descriptors; answers are `{"id": N, "pid": P}` with the
child's pidfd, later `{"id": N, "exit": CODE}`.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys

from pylxc.kernel import caps
from pylxc.kernel import fds as descriptors
from pylxc.runtime import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

KINDS = {
    "monitor": ("pylxc.runtime.monitor", "main"),
    "exec": ("pylxc.runtime.exec", "main"),
    "files": ("pylxc.runtime.files", "main"),
    "unpack": ("pylxc.runtime.unpack", "main"),
}
"""What can be spawned: `function(payload, fds) -> None`, where fds[0] is a socket for results to the daemon."""

_WARM = ("monitor", "exec")


def main(fd: int) -> None:
    """Serve the daemon on the socket `fd` until it closes it."""
    caps.set_name("pylxc-spawner")
    # A Ctrl-C in the daemon's terminal is the daemon's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for kind in _WARM:
        _load(KINDS[kind][0])
    Spawner(protocol.adopt(fd)).serve()


def _load(module: str) -> ModuleType:
    # Not importlib's import_module: that package would be in every monitor for this one line.
    __import__(module)
    return sys.modules[module]


class Spawner:
    """The loop over the daemon's socket and the children's ends."""

    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._children: dict[int, int] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Fork what the daemon asks for and report what ends, until the daemon is gone."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._daemon, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        # Frozen objects are not touched by the collector, so their pages stay shared with the children.
        gc.collect()
        gc.freeze()
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._reap()
            if self._daemon.fileno() in ready and not self._answer():
                return

    def _answer(self) -> bool:
        received = protocol.receive(self._daemon)
        if received is None:
            return False
        request, fds = received
        pid = os.fork()
        if pid == 0:
            self._become(request["kind"], request["payload"], fds)
        self._children[pid] = request["id"]
        pidfd = os.pidfd_open(pid)
        self._tell({"id": request["id"], "pid": pid}, [pidfd])
        descriptors.close([pidfd, *fds])
        return True

    def _become(self, kind: str, payload: protocol.Message, fds: list[int]) -> None:
        """Turn this forked child into what was asked for; does not return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.setsid()
            descriptors.close_all_but([0, 1, 2, *fds])
            caps.set_name(f"pylxc-{kind}")
            module, function = KINDS[kind]
            try:
                getattr(_load(module), function)(payload, fds)
                code = 0
            except Exception as error:  # noqa: BLE001 (whatever it is, the daemon is told)
                result = socket.socket(fileno=os.dup(fds[0]))
                protocol.send(result, protocol.describe_error(error))
        except BaseException as error:  # noqa: BLE001 (a forked child must never fall back into the loop)
            sys.stderr.write(f"pylxc-spawner: {kind}: {error!r}\n")
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                self._tell({"id": child, "exit": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: protocol.Message, fds: list[int] | None = None) -> None:
        try:
            protocol.send(self._daemon, message, fds or [])
        except BrokenPipeError:
            # The end of the daemon shows as end of file on the next turn; nobody is left to tell.
            return
