"""Processes in instances.

Over the unix socket the process gets the caller's own pipes (`pylxc_exec_upgrade`, docs/api-extensions.md), so
nothing stands between the two; servers without it are served by `pylxc.client.exec_websocket`.
"""

from __future__ import annotations

import os
import sys
from _socket import SCM_RIGHTS, SOL_SOCKET

from pylxc.client import codec, relay, terminal
from pylxc.client.http import Unreachable, quote
from pylxc.errors import Internal, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any

    from pylxc.client.client import Client
else:
    import _signal  # the C part: `signal` would bring `enum`, which takes as long as all the rest here

_UPGRADE = {"Content-Type": "application/json", "Upgrade": "pylxc-exec", "Connection": "Upgrade"}
_INT_SIZE = 4


class CommandFailed(PylxcError):
    """The command could not be run; `exit_code` is 126 or 127 as a shell has it."""

    http_status = 400

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Signals:
    """Catches signals for the time of a `with` block and hands their numbers out through a descriptor.

    Outside the main thread, where Python allows no handlers, nothing is caught.
    """

    def __init__(self, names: str) -> None:
        self._names = names.split()
        self._saved: dict[int, Any] = {}
        self.fd = self._write_fd = -1

    def __enter__(self) -> Signals:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        try:
            self._saved_wakeup = _signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        except ValueError:
            return self  # not the main thread: signals are somebody else's
        for name in self._names:
            number = getattr(_signal, name)
            self._saved[number] = _signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        os.close(self.fd)

    def end(self) -> None:
        """Catch no more; `take` has an end now."""
        for number, handler in self._saved.items():
            _signal.signal(number, handler)
        if self._saved:
            _signal.set_wakeup_fd(self._saved_wakeup)
            self._saved = {}
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1

    def take(self) -> bytes:
        """Return the numbers of the signals that came, one per byte, none at the end; after `fd` became readable."""
        return os.read(self.fd, 64)


FORWARDED = "SIGTERM SIGHUP SIGINT SIGQUIT SIGABRT SIGUSR1 SIGUSR2 SIGCONT SIGTSTP SIGTTIN SIGTTOU"


def run(client: Client, name: str, request: dict[str, Any], fds: tuple[int, int, int] = (0, 1, 2)) -> int:
    """Run a command in an instance with `fds` as its stdin, stdout and stderr; return its exit status.

    Signals that reach the caller are sent on to the command, so this must run in the main thread.

    Args:
        client: the server.
        name: the instance.
        request: body of the exec request: command, interactive, environment, user, group, cwd.
        fds: descriptors of the caller; a terminal among them is put into raw mode when `interactive`.

    Returns:
        The exit status, 128 + N when signal N killed it.

    Raises:
        CommandFailed: there is no such command, or it cannot be executed.
        PylxcError: the instance is not there or does not run.
        Unreachable: the connection broke while the command ran.
    """
    body = {"wait-for-websocket": True, "record-output": False, **request}
    if request.get("interactive"):
        body["width"], body["height"] = terminal.size(fds[1])
    headers = _UPGRADE if client.is_local else None
    response = client.stream(
        "POST", f"/1.0/instances/{quote(name)}/exec", headers=headers, body=codec.dumps(body).encode()
    )
    if response.status == 101:
        return _Upgraded(client).run(fds, interactive=bool(request.get("interactive")))

    from pylxc.client import exec_websocket

    operation = codec.loads(response.read().decode())["metadata"]
    return exec_websocket.run(client, operation, fds, interactive=bool(request.get("interactive")))


class _Upgraded:
    """The connection after the upgrade: JSON lines both ways, descriptors beside them."""

    def __init__(self, client: Client) -> None:
        stream, self._rest = client.connection.detach()
        self._socket: Any = stream
        self._received: list[int] = []

    def run(self, fds: tuple[int, int, int], *, interactive: bool) -> int:
        with Signals(f"{FORWARDED} SIGWINCH" if interactive else FORWARDED) as signals:
            try:
                return self._run_pty(fds, signals) if interactive else self._run_pipes(fds, signals)
            finally:
                self._socket.close()

    def _run_pipes(self, fds: tuple[int, int, int], signals: Signals) -> int:
        passed, relays, made = [], [], []
        for number, fd in enumerate(fds):
            if relay.may_be_passed(fd):
                passed.append(fd)
                continue
            read_end, write_end = relay.make_pipe()
            theirs, ours = (read_end, write_end) if number == 0 else (write_end, read_end)
            relays.append(
                relay.Relay(fd, ours, own_source=False) if number == 0 else relay.Relay(ours, fd, own_source=True)
            )
            passed.append(theirs)
            made.append(theirs)
        rights = b"".join(fd.to_bytes(_INT_SIZE, sys.byteorder) for fd in passed)
        self._say(b'{"fds":3}\n', [(SOL_SOCKET, SCM_RIGHTS, rights)])
        for fd in made:
            os.close(fd)
        try:
            return self._until_return(relays, signals)
        finally:
            for one in relays:
                one.drain() if one.own == one.source else one.close()

    def _run_pty(self, fds: tuple[int, int, int], signals: Signals) -> int:
        self._say(b'{"fds":0}\n')
        message = self._next_message([], signals)
        if "return" in message:
            return self._returned(message)
        if not self._received:
            raise Internal("The server sent no terminal")
        master = self._received.pop()
        os.set_blocking(master, False)
        self._resize(fds[1], master)
        with terminal.Raw(fds[0]):
            keys = _Keys(fds[0], os.dup(master))
            screen = relay.Relay(master, fds[1], own_source=True)
            try:
                return self._until_return([keys, screen], signals, lambda: screen.done or self._resize(fds[1], master))
            finally:
                keys.close()
                screen.drain()

    def _say(self, line: bytes, ancillary: Any = ()) -> None:
        """Tell the supervisor something; one that has gone has left word, which is read next."""
        try:
            self._socket.sendmsg([line], ancillary)
        except (BrokenPipeError, ConnectionResetError):
            return

    @staticmethod
    def _resize(fd: int, master: int) -> None:
        columns, rows = terminal.size(fd)
        if columns and rows:
            terminal.set_size(master, columns, rows)

    def _until_return(self, relays: list[relay.Relay], signals: Signals, on_resize: Any = None) -> int:
        while True:
            message = self._next_message(relays, signals, on_resize)
            if "return" in message:
                return self._returned(message)

    @staticmethod
    def _returned(message: dict[str, Any]) -> int:
        if message.get("error"):
            raise CommandFailed(str(message["error"]), int(message["return"]))
        return int(message["return"])

    def _next_message(self, relays: list[relay.Relay], signals: Signals, on_resize: Any = None) -> dict[str, Any]:
        """Return the supervisor's next line; relay and forward signals in the meantime."""
        loop = relay.Loop(relays)
        while b"\n" not in self._rest:
            hits = loop.wait(self._socket.fileno(), signals.fd)
            if signals.fd in hits:
                for number in signals.take():
                    if number == _signal.SIGWINCH:
                        if on_resize:
                            on_resize()
                    else:
                        self._say(b'{"signal":%d}\n' % number)
                    if number == _signal.SIGHUP and on_resize:
                        # The terminal is gone; a command that outlives that would keep this process for ever.
                        raise CommandFailed("The terminal hung up", 128 + number)
            if self._socket.fileno() in hits:
                data, ancillary, _, _ = self._socket.recvmsg(65536, 256)
                for level, kind, payload in ancillary:
                    if level == SOL_SOCKET and kind == SCM_RIGHTS:
                        self._received += [
                            int.from_bytes(payload[at : at + _INT_SIZE], sys.byteorder)
                            for at in range(0, len(payload) - _INT_SIZE + 1, _INT_SIZE)
                        ]
                if not data:
                    raise Unreachable("The connection broke while the command was running")
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        message = codec.loads(line.decode())
        return message if isinstance(message, dict) else {}


class _Keys(relay.Relay):
    """The caller's input to the pty; its end becomes an end-of-file character, as a terminal has no other."""

    def __init__(self, source: int, master: int) -> None:
        super().__init__(source, master, own_source=False)
        self._splice = self._watch_sink = False
        self._ended = False

    def _move(self) -> int:
        moved = super()._move()
        if moved or self._ended:
            return moved
        self._ended = True
        self._pending = b"\x04"
        super()._move()
        return 0
