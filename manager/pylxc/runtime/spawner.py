"""The spawner: a single-threaded process beside the daemon that forks all processes of the runtime.

The daemon has threads, so it must neither fork nor enter namespaces. The spawner is a warm interpreter without
threads; a child forked from it starts in about a millisecond. It ends with its daemon, its children do not.

Requests are a kind, a space and the payload as JSON, with descriptors; answers to the Nth request are
`{"id": N, "pid": P}` with the child's pidfd, later `{"id": N, "exit": CODE}`.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys

from pylxc.kernel import caps, signals
from pylxc.kernel import fds as descriptors
from pylxc.runtime import monitor, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

KINDS = {
    "exec": ("pylxc.runtime.exec", "main"),
    "files": ("pylxc.runtime.files", "main"),
    "proxy": ("pylxc.runtime.proxy.process", "main"),
    "templates": ("pylxc.runtime.templates", "main"),
    "hotplug": ("pylxc.runtime.hotplug", "main"),
    "unpack": ("pylxc.runtime.unpack", "main"),
}
"""What there is beside "monitor": `function(payload, fds)`, where fds[0] is a socket for results to the daemon."""

_WARM = ("exec", "files", "proxy", "templates")


def main(fd: int) -> None:
    """Serve the daemon on the socket `fd` until it closes it."""
    caps.set_name("pylxc-spawner")
    signals.stop_ignoring()
    for kind in _WARM:
        _function(kind)
    Spawner(protocol.adopt(fd)).serve()


class Spawner:
    """The loop over the daemon's socket and the children's pidfds.

    No signal handler, no thread, no heavy module, and next to no work: pages that the spawner writes to after a fork
    are no longer shared with its children, so each monitor pays for them. Requests are parsed in the child.
    """

    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._children: dict[int, tuple[int, int]] = {}
        self._poll = select.poll()
        self._count = 0

    def serve(self) -> None:
        """Fork what the daemon asks for and report what ends, until the daemon is gone."""
        self._poll.register(self._daemon, select.POLLIN)
        daemon = self._daemon.fileno()
        # Frozen objects are not touched by the collector, so their pages stay shared with the children.
        gc.collect()
        gc.freeze()
        while True:
            for fd, _ in self._poll.poll():
                if fd != daemon:
                    self._reap(fd)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        packet = protocol.receive_packet(self._daemon)
        if packet is None:
            return False
        self._count += 1
        try:
            pid = os.fork()
        except OSError:  # no memory, or too many processes: this one has failed, others need us
            self._tell(b'{"id":%d,"exit":1}' % self._count, [])
            descriptors.close(packet[1])
            return True
        if pid == 0:
            _become(*packet)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, self._count)
        self._poll.register(pidfd, select.POLLIN)
        self._tell(b'{"id":%d,"pid":%d}' % (self._count, pid), [pidfd])
        descriptors.close(packet[1])
        return True

    def _reap(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        pid, number = self._children.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        self._tell(b'{"id":%d,"exit":%d}' % (number, os.waitstatus_to_exitcode(status)), [])

    def _tell(self, data: bytes, fds: list[int]) -> None:
        try:
            descriptors.send(self._daemon, data, fds)
        except BrokenPipeError:
            # The end of the daemon shows as end of file on the next turn; nobody is left to tell.
            return


def _become(data: bytes, fds: list[int]) -> NoReturn:
    """Turn this forked child into what was asked for."""
    code = 1
    kind = ""
    try:
        kind, body = data[: data.index(b" ")].decode(), data[data.index(b" ") + 1 :]
        os.setsid()
        descriptors.close_all_but([0, 1, 2, *fds])
        try:
            if kind == "monitor":
                monitor.main(body, fds)
            else:
                _function(kind)(*protocol.read_packet(body, fds))
            code = 0
        except Exception as error:  # noqa: BLE001 (whatever it is, the daemon is told)
            protocol.tell(protocol.adopt(os.dup(fds[0])), protocol.describe_error(error))
    except BaseException as error:  # noqa: BLE001 (a forked child must never fall back into the loop)
        sys.stderr.write(f"pylxc-spawner: {kind}: {error!r}\n")
    finally:
        os._exit(code)


def _function(kind: str) -> Callable[[protocol.Message, list[int]], None]:
    module, name = KINDS[kind]
    # Not importlib's import_module: that package would be in every monitor for this one line.
    __import__(module)
    function: Callable[[protocol.Message, list[int]], None] = getattr(sys.modules[module], name)
    return function
