"""Exec over LXD's websockets, for servers without `pylxc_exec_upgrade`; the console speaks the same."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress

from pylxc.client import codec, terminal
from pylxc.client.exec import FORWARDED, CommandFailed, Signals
from pylxc.client.http import quote
from pylxc.client.operations import Operation
from pylxc.errors import PylxcError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from websockets.sync.client import ClientConnection

    from pylxc.client.client import Client

_BLOCK = 1 << 16
_NOT_RUN = (126, 127)


def open_websocket(client: Client, path: str) -> ClientConnection:
    """Open the websocket at `path` of the client's server.

    Raises:
        Unavailable: the server refuses it.
    """
    import socket

    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    stream: Any = client.dial()
    sock: Any
    if client.is_local:
        sock = socket.socket(fileno=stream.detach())
    else:
        from pylxc.client.tls import SharedSocket

        sock = SharedSocket(stream.socket)
    # A plain address in either case: TLS, where there is any, is the socket's. No pings of this side: a server whose
    # command does not read yet does not answer them, nor does a client whose reader has paused, and both may.
    try:
        return connect(f"ws://pylxc{path}", sock=sock, max_size=None, compression=None, ping_interval=None)
    except (OSError, WebSocketException) as error:
        raise Unavailable(f"Failed to open a websocket: {error}") from error


def open_fd(client: Client, operation: dict[str, Any], name: str) -> ClientConnection:
    """Open the websocket that the operation's metadata lists as descriptor `name`."""
    secret = operation["metadata"]["fds"][name]
    return open_websocket(client, f"/1.0/operations/{operation['id']}/websocket?secret={quote(secret)}")


def receive_to(socket: ClientConnection, fd: int) -> None:
    """Write the socket's messages to `fd` until the empty text message that ends the stream, or its close.

    Raises:
        OSError: they cannot be written.
    """
    from websockets.exceptions import ConnectionClosed

    try:
        with suppress(ConnectionClosed, BrokenPipeError):
            for message in socket:
                if isinstance(message, str):
                    break
                view = memoryview(message)
                while view:
                    view = view[os.write(fd, view) :]
    finally:
        socket.close()


class Receiver(threading.Thread):
    """A thread that does `receive_to`; `error` is what it could not write for."""

    def __init__(self, socket: ClientConnection, fd: int) -> None:
        super().__init__(daemon=True)
        self.error: OSError | None = None
        self._socket = socket
        self._fd = fd

    def run(self) -> None:
        """Receive."""
        try:
            receive_to(self._socket, self._fd)
        except OSError as error:
            self.error = error


def send_from(fd: int, socket: ClientConnection) -> None:
    """Send what comes from `fd`, then the empty text message."""
    from websockets.exceptions import ConnectionClosed

    try:
        while data := os.read(fd, _BLOCK):
            socket.send(data)
        socket.send("")
    except (ConnectionClosed, OSError):
        pass


@contextmanager
def forwarding(names: str, forward: Callable[[int], None]) -> Iterator[None]:
    """Have a thread call `forward` with the number of each signal of `names` that comes while the block runs."""
    from websockets.exceptions import ConnectionClosed

    with Signals(names) as signals:

        def run() -> None:
            with suppress(ConnectionClosed):
                while numbers := signals.take():
                    for number in numbers:
                        forward(number)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            signals.end()
            thread.join()


def send_size(control: ClientConnection, fd: int) -> None:
    """Tell the server the size of the terminal `fd`.

    Raises:
        ConnectionClosed: the server has ended the connection.
    """
    columns, rows = terminal.size(fd)
    message = {"command": "window-resize", "args": {"width": str(columns), "height": str(rows)}}
    control.send(codec.dumps(message))


def run(client: Client, operation: dict[str, Any], fds: tuple[int, int, int], *, interactive: bool) -> int:
    """Serve the exec `operation` with `fds` and return the command's exit status; see `pylxc.client.exec.run`."""
    control = open_fd(client, operation, "control")
    receivers, senders = [], []
    if interactive:
        pty = open_fd(client, operation, "0")
        receivers.append(Receiver(pty, fds[1]))
        senders.append(threading.Thread(target=send_from, args=(fds[0], pty), daemon=True))
    else:
        stdin = open_fd(client, operation, "0")
        senders.append(threading.Thread(target=send_from, args=(fds[0], stdin), daemon=True))
        receivers += [Receiver(open_fd(client, operation, name), fd) for name, fd in (("1", fds[1]), ("2", fds[2]))]

    def forward(number: int) -> None:
        if number == signal.SIGWINCH:
            send_size(control, fds[1])
        else:
            control.send(codec.dumps({"command": "signal", "signal": number}))

    names = f"{FORWARDED} SIGWINCH" if interactive else FORWARDED
    with forwarding(names, forward), terminal.Raw(fds[0] if interactive else -1):
        for thread in [*receivers, *senders]:
            thread.start()
        result = Operation(client, operation)
        try:
            result.wait()
        except PylxcError as error:
            code = int(result.metadata.get("return", 0))
            if code in _NOT_RUN:
                raise CommandFailed(str(error), code) from error
            raise
        for receiver in receivers:
            receiver.join()
    control.close()
    for receiver in receivers:
        if receiver.error is not None:
            raise receiver.error
    return int(result.metadata.get("return", 0))
