"""The console of an instance on the caller's terminal."""

from __future__ import annotations

import os
import threading

from pylxc.client import terminal
from pylxc.client.exec_websocket import forwarding, open_fd, receive_to, send_from, send_size
from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pylxc.client.client import Client

ESCAPE = 0x01  # ctrl-a


class EscapeReader:
    """Finds ctrl-a q in what the user types; ctrl-a a stands for ctrl-a."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be sent, and whether the user has asked to detach."""
        result = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte == ord("q"):
                    return bytes(result), True
                # ctrl-a a is one ctrl-a; anything else is none of ours and goes through whole.
                result += bytes([ESCAPE]) if byte in {ord("a"), ESCAPE} else bytes([ESCAPE, byte])
            elif byte == ESCAPE:
                self._escaped = True
            else:
                result.append(byte)
        return bytes(result), False


def attach(
    client: Client, name: str, fds: tuple[int, int] = (0, 1), *, on_attached: Callable[[], None] = lambda: None
) -> None:
    """Connect `fds` (input, output) with the console until the user detaches or the instance stops.

    Args:
        client: the server.
        name: the instance.
        fds: the terminal.
        on_attached: called once they are connected.

    Raises:
        BadRequest: the instance does not run.
    """
    columns, rows = terminal.size(fds[1])
    body = {"width": columns, "height": rows, "type": "console"}
    path = f"/1.0/instances/{quote(name)}/console"
    operation = client.request("POST", path, body).metadata
    control = open_fd(client, operation, "control")
    data = open_fd(client, operation, "0")
    on_attached()
    detach_read, detach_write = os.pipe()
    reader = EscapeReader()

    def keys() -> None:
        while typed := os.read(fds[0], 4096):
            wanted, detach = reader.feed(typed)
            if wanted:
                os.write(keys_write, wanted)
            if detach:
                break
        os.close(keys_write)
        os.write(detach_write, b"d")

    def screen() -> None:
        try:
            receive_to(data, fds[1])
        finally:
            os.write(detach_write, b"e")

    keys_read, keys_write = os.pipe()
    with forwarding("SIGWINCH", lambda _: send_size(control, fds[1])), terminal.Raw(fds[0]):
        for target, arguments in ((keys, ()), (screen, ()), (send_from, (keys_read, data))):
            threading.Thread(target=target, args=arguments, daemon=True).start()
        os.read(detach_read, 1)
    # Closing the control socket is what detaches.
    control.close()
    data.close()
