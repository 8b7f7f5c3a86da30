"""Running commands in instances: LXD's exec with websockets or recorded output, and pylxc's direct one."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pylxc.db.engine import Database
from pylxc.errors import BadRequest, Internal
from pylxc.kernel import fds as descriptors
from pylxc.paths import Paths, storage_name
from pylxc.runtime import protocol
from pylxc.runtime.attach import NOT_EXECUTABLE, NOT_FOUND
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spawn import Child
from pylxc.runtime.spec import ExecSpec
from pylxc.services.events import EventBus
from pylxc.services.instances import expand
from pylxc.services.operations import Operation, Operations
from pylxc.wire.instances import InstanceExecPost

if TYPE_CHECKING:
    from pylxc.services.operations import Connect

CONNECT_SECONDS = 5.0
"""How long the websockets of an exec are waited for."""

_MAX_ID = 2**32 - 2
_MAX_SIZE = 2**16 - 1


class Relay(Protocol):
    """What carries the bytes of an exec between its process and the client's websockets."""

    @property
    def connect(self) -> Connect:
        """Takes each websocket, see `Operations.start`."""

    def wait_connected(self, timeout: float) -> bool:
        """Block until the websockets that are needed are there; False when not within `timeout` s, or given up."""

    def give_up(self) -> None:
        """Wait for websockets no longer, from any thread."""

    def begin(self, control: socket.socket, stdio: Sequence[int]) -> None:
        """Start carrying.

        Args:
            control: the stream socket of `runtime.exec`; a terminal's master comes through it.
            stdio: the host's ends of standard input, output and error; empty for a terminal. All of it is the
                relay's from now on.
        """

    def finish(self) -> None:
        """Carry what is left, tell the client the end, and close."""


class InstanceExec:
    """Exec; thread-safe."""

    def __init__(
        self, database: Database, runtime: Runtime, operations: Operations, events: EventBus, paths: Paths
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._operations = operations
        self._events = events
        self._paths = paths

    def start_relayed(self, project: str, name: str, body: InstanceExecPost, relay: Relay) -> Operation:
        """Run a command for a client with websockets; they are due within `CONNECT_SECONDS`.

        Raises:
            NotFound: no such instance.
            BadRequest: it does not run, is frozen, or the request is invalid.
        """
        spec = self._spec(project, name, body)
        sockets = ("0", "control") if spec.interactive else ("0", "1", "2", "control")
        running = _Running(self._runtime)

        def run(operation: Operation) -> dict[str, Any]:
            try:
                if not relay.wait_connected(CONNECT_SECONDS):
                    operation.check_cancelled()
                    raise BadRequest("Timed out waiting for the websockets of exec")
                self._announce(project, name, spec)
                ours, theirs = socket.socketpair()
                host, inside = ([], []) if spec.interactive else _pipes()
                try:
                    running.spawn(self._payload(project, name, spec), [theirs.fileno(), *inside])
                finally:
                    theirs.close()
                    for fd in inside:
                        os.close(fd)
                    relay.begin(ours, host)
                return _finish(operation, running.wait())
            finally:
                relay.finish()

        def cancel() -> None:
            running.kill()
            relay.give_up()

        return self._start(project, name, spec, run, cancel, class_="websocket", sockets=sockets, connect=relay.connect)

    def start_recorded(self, project: str, name: str, body: InstanceExecPost) -> Operation:
        """Run a command that nobody is connected to; with `record-output` its output goes to the instance's logs.

        It goes on when the daemon restarts. Raises like `start_relayed`.
        """
        spec = self._spec(project, name, {**body, "interactive": False})
        running = _Running(self._runtime)

        def run(operation: Operation) -> dict[str, Any]:
            payload = self._payload(project, name, spec) | {"keep": True}
            output: dict[str, Any] = {}
            if body.get("record-output"):
                directory = self._paths.instance_logs(storage_name(project, name))
                os.makedirs(directory, mode=0o700, exist_ok=True)
                files = [f"exec_{operation.id}.stdout", f"exec_{operation.id}.stderr"]
                payload["record"] = [f"{directory}/{file}" for file in files]
                output = {"output": {str(n): f"/1.0/instances/{name}/logs/{f}" for n, f in enumerate(files, 1)}}
            self._announce(project, name, spec)
            ours, theirs = socket.socketpair()
            null = [] if output else [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)] * 3
            with ours, theirs:
                running.spawn(payload, [theirs.fileno(), *null])
                for fd in null[:1]:
                    os.close(fd)
                theirs.close()
                operation.update_from(output)
                return _finish(operation, running.wait()) | output

        return self._start(project, name, spec, run, running.kill, class_="task")

    def start_direct(
        self, project: str, name: str, body: InstanceExecPost, peer_fd: int, greet: Callable[[str], None]
    ) -> Operation:
        """Run a command whose supervisor talks to the client itself (extension `pylxc_exec_upgrade`).

        Args:
            project: the instance's.
            name: the instance's.
            body: LXD's exec request.
            peer_fd: the client's socket, open until the operation has begun to run; closed here after that.
            greet: called with the operation's id once nothing of the request can be wrong any more: tells the
                client to change the protocol.

        Raises like `start_relayed`; `peer_fd` is then still the caller's.
        """
        spec = self._spec(project, name, body)
        running = _Running(self._runtime)

        def run(operation: Operation) -> dict[str, Any]:
            try:
                greet(operation.id)
                running.spawn(self._payload(project, name, spec), [peer_fd])
            finally:
                os.close(peer_fd)
            self._announce(project, name, spec)
            return _finish(operation, running.wait())

        return self._start(project, name, spec, run, running.kill, class_="websocket")

    def _start(
        self,
        project: str,
        name: str,
        spec: ExecSpec,
        run: Callable[[Operation], dict[str, Any]],
        cancel: Callable[[], None],
        **options: Any,
    ) -> Operation:
        return self._operations.start(
            "Executing command",
            run,
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
            on_cancel=cancel,
            metadata={
                "command": list(spec.command),
                "environment": spec.environment,
                "interactive": spec.interactive,
            },
            **options,
        )

    def _payload(self, project: str, name: str, spec: ExecSpec) -> dict[str, Any]:
        run_dir = self._paths.instance_run(storage_name(project, name))
        return {"run_dir": run_dir, "exec": spec.to_json()}

    def _announce(self, project: str, name: str, spec: ExecSpec) -> None:
        self._events.lifecycle(
            "instance-exec", f"/1.0/instances/{name}", project=project, context={"command": list(spec.command)}
        )

    def _spec(self, project: str, name: str, body: InstanceExecPost) -> ExecSpec:
        environment = {"LANG": "C.UTF-8", "container": "lxc"}
        user, group = body.get("user", 0), body.get("group", 0)
        if user == 0:
            environment |= {"HOME": "/root", "USER": "root"}
        with self._database.reading() as session:
            record = expand.load(session, project, name)
        for key, value in record.expanded_config.items():
            if key.startswith("environment."):
                environment[key.removeprefix("environment.")] = value
        environment |= body.get("environment") or {}
        self._check_running(record.key)
        command = body.get("command") or []
        _check(command, environment, user, group, body.get("cwd", ""))
        return ExecSpec(
            command=tuple(command),
            environment=environment,
            cwd=body.get("cwd") or "/root",
            uid=user,
            gid=group,
            interactive=body.get("interactive", False),
            width=min(max(body.get("width") or 80, 1), _MAX_SIZE),
            height=min(max(body.get("height") or 24, 1), _MAX_SIZE),
        )

    def _check_running(self, key: str) -> None:
        running = self._runtime.get(key)
        if running is None:
            raise BadRequest("Instance is not running")
        if running.status == "Frozen":
            raise BadRequest("Instance is frozen")


class _Running:
    """The supervisor of an exec, once there is one; can be killed from any thread, also before."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._child: Child | None = None
        self._killed = False

    def spawn(self, payload: dict[str, Any], fds: list[int]) -> None:
        self._child = self._runtime.spawn("exec", payload, fds)
        if self._killed:
            self.kill()

    def wait(self) -> dict[str, Any]:
        """Return what `runtime.exec` says at the end; {} when it was killed."""
        assert self._child is not None
        try:
            received = self._child.receive()
        finally:
            self._child.close()
        if received is None:
            return {}
        outcome, fds = received
        descriptors.close(fds)
        if isinstance(outcome.get("error"), dict):
            raise protocol.rebuild_error(outcome)
        return outcome

    def kill(self) -> None:
        self._killed = True
        if self._child is not None:
            self._child.kill(signal.SIGTERM)


def _finish(operation: Operation, outcome: dict[str, Any]) -> dict[str, Any]:
    """Return the operation's metadata of an outcome of `runtime.exec`.

    Raises:
        BadRequest: the command is not there or not executable; `return` is in the metadata by then.
        Internal: the container could not be entered.
    """
    error, status = outcome.get("error"), outcome.get("return", 128 + signal.SIGKILL)
    if status in (NOT_EXECUTABLE, NOT_FOUND) and error:
        operation.update_from({"return": status})
        raise BadRequest(error)
    if error:
        raise Internal(error)
    return {"return": status}


def _pipes() -> tuple[list[int], list[int]]:
    """Return the host's and the process's ends of its standard input, output and error."""
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    return [stdin[1], stdout[0], stderr[0]], [stdin[0], stdout[1], stderr[1]]


def _check(command: list[str], environment: dict[str, str], user: int, group: int, cwd: str) -> None:
    if not command or not command[0]:
        raise BadRequest("No command was given")
    if any("\0" in text for text in (*command, *environment, *environment.values(), cwd)):
        raise BadRequest("A command, its environment and directory hold no zero bytes")
    for key in environment:
        if not key or "=" in key:
            raise BadRequest(f"Invalid environment variable {key!r}")
    if not (0 <= user <= _MAX_ID and 0 <= group <= _MAX_ID):
        raise BadRequest("User and group are numbers from 0 to 4294967294")
