"""What of a running container can be waited for: each kind of readiness looks, and says what to wait for meanwhile."""

from __future__ import annotations

import os
import socket
from typing import Any, Protocol

from pylxc.errors import BadRequest
from pylxc.kernel import fds as descriptors
from pylxc.kernel.netwatch import NetWatch
from pylxc.paths import Paths
from pylxc.runtime.attach import NOT_EXECUTABLE, NOT_FOUND
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spawn import Child
from pylxc.runtime.spec import ExecSpec

_ADDRESSES = {"ip": "address", "ipv4": "IPv4 address", "ipv6": "IPv6 address"}
_PAUSES = (0.05, 0.1, 0.2, 0.5)
"""Before a command is run again, in seconds; the last one from then on."""
_OUTPUT_BYTES = 4096
_BOOTED = ("running", "degraded")

# OpenRC and sysvinit say when they are through; of other inits nothing is known but that they run.
_OTHER_INIT = """
if [ -e /run/openrc/softlevel ]; then [ ! -e /run/openrc/rc.starting ] && [ "$(cat /run/openrc/softlevel)" != boot ]
elif command -v runlevel >/dev/null; then [ "$(runlevel)" != unknown ]
fi
"""


class Probe(Protocol):
    """One kind of readiness of one run of a container.

    Attributes:
        missing: what is not so yet, after the instance's name: "has no address".
        pause: seconds after which to look again though nothing has happened, None for never.
    """

    missing: str
    pause: float | None

    def look(self) -> dict[str, Any] | None:
        """Return facts on what is ready, None while it is not."""

    def fileno(self) -> int:
        """Return a descriptor that is readable once it is worth to look again, -1 for none."""

    def close(self) -> None:
        """Let go of everything."""


def check(condition: str) -> None:
    """Check a kind of readiness.

    Raises:
        BadRequest: there is no such kind.
    """
    if condition in ("network", "exec", "boot", *_ADDRESSES):
        return
    kind, _, number = condition.partition(":")
    port, _, protocol = number.partition("/")
    is_number = port.isascii() and port.isdigit() and 1 <= int(port[:9]) <= 65535
    if kind == "port" and is_number and protocol in ("", "tcp", "udp"):
        return
    hint = "network, ip, ipv4, ipv6, port:N, port:N/udp, exec, boot, running or stopped"
    raise BadRequest(f"Unknown condition {condition!r}", hint=hint)


def probe(condition: str, families: set[str], runtime: Runtime, paths: Paths, key: str, pid: int) -> Probe:
    """Return what looks for a condition that `check` has passed.

    Args:
        condition: the kind.
        families: inet and inet6, as far as the instance's networks hand out addresses; empty when nothing is known.
        runtime: of the container.
        paths: where its run directory is.
        key: the instance's.
        pid: PID 1's.

    Raises:
        OSError: it has just ended.
    """
    kind, _, number = condition.partition(":")
    if kind == "port":
        port, _, protocol = number.partition("/")
        return _Port(pid, protocol or "tcp", int(port))
    if kind == "exec":
        return _Exec(runtime, paths, key)
    if kind == "boot":
        is_systemd = os.readlink(f"/proc/{pid}/exe").endswith("/systemd")
        return _Systemd(runtime, paths, key) if is_systemd else _OtherInit(runtime, paths, key)
    if kind == "network":
        return _Network(pid, families)
    return _Address(pid, kind)


class _Address:
    """Whether an interface has an address; see `Probe`."""

    pause: float | None = None

    def __init__(self, pid: int, kind: str) -> None:
        self.missing = f"has no {_ADDRESSES[kind]}"
        self._wanted = {"ipv4": {"inet"}, "ipv6": {"inet6"}}.get(kind, set())
        self._watch = NetWatch(pid)

    def look(self) -> dict[str, Any] | None:
        self._watch.forget_changes()
        found = self._found()
        return {"families": sorted(found)} if found and self._wanted <= found else None

    def _found(self) -> set[str]:
        return self._watch.addresses()

    def fileno(self) -> int:
        return self._watch.fileno()

    def close(self) -> None:
        self._watch.close()


class _Network(_Address):
    """Whether the outside can be reached: an address and a default route; see `Probe`."""

    def __init__(self, pid: int, families: set[str]) -> None:
        super().__init__(pid, "ip")
        self.missing = "has no address with a default route"
        # IPv6 configures itself in no time; who has both waits for IPv4.
        self._wanted = families & {"inet"}

    def _found(self) -> set[str]:
        return self._watch.addresses() & self._watch.default_routes()


class _Port:
    """Whether a socket listens; see `Probe`."""

    pause: float | None = 0.1
    """Of a socket that begins to listen the kernel tells nobody."""

    def __init__(self, pid: int, protocol: str, port: int) -> None:
        self.missing = f"has nothing that listens on {protocol} port {port}"
        self._where = protocol, port
        self._watch = NetWatch(pid)

    def look(self) -> dict[str, Any] | None:
        return {} if self._watch.listens(*self._where) else None

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._watch.close()


class _Command:
    """Whether a command inside says so; it is run again until it does. See `Probe`."""

    missing = ""
    command: tuple[str, ...] = ()

    def __init__(self, runtime: Runtime, paths: Paths, key: str) -> None:
        self.pause: float | None = None
        self._runtime = runtime
        self._run_dir = paths.instance_run(key)
        self._child: Child | None = None
        self._peer: socket.socket | None = None
        self._output = -1
        self._pauses = iter(_PAUSES)

    def look(self) -> dict[str, Any] | None:
        if self._child is None:
            self._start()
            return None
        try:
            received = self._child.receive(0)
        except TimeoutError:
            return None
        outcome = received[0] if received else {}
        output = self._printed()
        self.close()
        found = self.judge(outcome.get("return", 1), output)
        if found is None:
            self.pause = next(self._pauses, _PAUSES[-1])
        return found

    def _printed(self) -> str:
        try:
            return os.read(self._output, _OUTPUT_BYTES).decode(errors="replace").strip()
        except BlockingIOError:  # it printed nothing, and something that it left behind still may
            return ""

    def judge(self, code: int, output: str) -> dict[str, Any] | None:
        """Return facts when exit status and output of the command say that it is so."""
        raise NotImplementedError

    def _start(self) -> None:
        self.pause = None
        spec = ExecSpec(command=self.command, environment={"LANG": "C.UTF-8"}, cwd="/")
        self._peer, theirs = socket.socketpair()
        self._output, inside = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.set_blocking(inside, True)
        with theirs:
            payload = {"run_dir": self._run_dir, "exec": spec.to_json()}
            try:
                self._child = self._runtime.spawn("exec", payload, [theirs.fileno(), null, inside, null])
            finally:
                descriptors.close([null, inside])

    def fileno(self) -> int:
        return -1 if self._child is None else self._child.socket.fileno()

    def close(self) -> None:
        # A command that still runs ends with its peer.
        if self._child is not None:
            self._child.close()
        if self._peer is not None:
            self._peer.close()
        if self._output >= 0:
            os.close(self._output)
        self._child, self._peer, self._output = None, None, -1


class _Exec(_Command):
    missing = "runs no commands"
    command = ("true",)

    def judge(self, code: int, output: str) -> dict[str, Any] | None:
        del output
        # That there is no such command is said by one that has got in.
        return {} if code in (0, NOT_FOUND) else None


class _Systemd(_Command):
    missing = "has not booted"
    command: tuple[str, ...] = ("systemctl", "is-system-running", "--wait")

    def judge(self, code: int, output: str) -> dict[str, Any] | None:
        if output in _BOOTED:
            return {"state": output}
        if output:
            self.missing = f"has not booted: systemd is {output!r}"
        # It says nothing before its bus is there, and before version 240 to --wait.
        self.command = _Systemd.command if output else _Systemd.command[:2]
        return None


class _OtherInit(_Command):
    missing = "has not booted"
    command = ("/bin/sh", "-c", _OTHER_INIT)

    def judge(self, code: int, output: str) -> dict[str, Any] | None:
        del output
        return {} if code in (0, NOT_EXECUTABLE, NOT_FOUND) else None
