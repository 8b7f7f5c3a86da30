"""What daemon, spawner and monitors say to each other: JSON messages with descriptors over SOCK_SEQPACKET sockets.

A message of more than `_INLINE` bytes travels in a memory file, as the last of its descriptors, and is just `_IN_FILE`.
"""

from __future__ import annotations

import json
import os
import socket
import time

from pylxc.errors import Internal, PylxcError, for_status, from_os
from pylxc.kernel import fds as descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Message = dict[str, Any]

_INLINE = 16000
_IN_FILE = b"F"
_MAX_PREFIX = 16
_MAX_MESSAGE = 64 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that keep message boundaries (close-on-exec)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def adopt(fd: int) -> socket.socket:
    """Return the socket that an inherited or received descriptor is; it owns `fd` from then on."""
    return socket.socket(fileno=fd)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = (), *, prefix: bytes = b"") -> None:
    """Send one message with copies of `fds`; a `prefix` is the receiver's to take off before `read_packet`.

    Raises:
        OSError: the other side is gone (EPIPE), or the message cannot be sent.
    """
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) <= _INLINE:
        descriptors.send(sock, prefix + data, fds)
        return
    memory_fd = os.memfd_create("pylxc-message", os.MFD_CLOEXEC)
    try:
        with open(memory_fd, "wb", closefd=False) as file:
            file.write(data)
        descriptors.send(sock, prefix + _IN_FILE, [*fds, memory_fd])
    finally:
        os.close(memory_fd)


def receive(sock: socket.socket, max_fds: int = descriptors.MAX_FDS) -> tuple[Message, list[int]] | None:
    """Return the next message and its descriptors (the caller's to close), None when the other side has closed.

    Raises:
        OSError: see recvmsg(2); TimeoutError when the socket has a timeout.
        Internal: what came is no message.
    """
    packet = receive_packet(sock, max_fds)
    return None if packet is None else read_packet(*packet)


def receive_packet(sock: socket.socket, max_fds: int = descriptors.MAX_FDS) -> tuple[bytes, list[int]] | None:
    """Return the next message as `read_packet` takes it; None and errors as in `receive`."""
    try:
        data, fds = descriptors.receive(sock, _INLINE + _MAX_PREFIX, max_fds)
    except ConnectionResetError:
        # The other side has closed without reading all. What it has said before, why it ended for instance, comes next.
        data, fds = descriptors.receive(sock, _INLINE + _MAX_PREFIX, max_fds)
    return (data, fds) if data else None


def read_packet(data: bytes, fds: list[int]) -> tuple[Message, list[int]]:
    """Return the message and the descriptors of a packet.

    Raises:
        Internal: it is no message.
    """
    if data == _IN_FILE and fds:
        memory_fd = fds.pop()
        try:
            size = os.fstat(memory_fd).st_size
            data = os.pread(memory_fd, min(size, _MAX_MESSAGE), 0)
        finally:
            os.close(memory_fd)
    try:
        message: Message = json.loads(data)
    except ValueError:
        descriptors.close(fds)
        raise Internal("Received a malformed message") from None
    return message, fds


def tell(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a message to someone who may have gone; then nobody misses it."""
    try:
        send(sock, message, fds)
    except (BrokenPipeError, ConnectionResetError):
        return


def write_file(path: str, content: Message) -> None:
    """Write a JSON file so that its readers see all of it or none."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(json.dumps(content))
    os.rename(f"{path}.new", path)


def begin_log(directory: str) -> None:
    """See that a container has a log: one that had no trouble has an empty one."""
    os.close(os.open(f"{directory}/lxc.log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def log(directory: str, text: str) -> None:
    """Add a line to the log of a container in its log directory."""
    with open(f"{directory}/lxc.log", "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")


def describe_error(error: BaseException, step: str = "") -> Message:
    """Return an error as a message that `rebuild_error` reads."""
    if isinstance(error, PylxcError):
        text, status = str(error), error.http_status
    elif isinstance(error, OSError):
        text, status = str(from_os(error)), 500
    else:
        text, status = f"{type(error).__name__}: {error}", 500
    message = f"Failed {step}: {text}" if step else text
    return {"error": {"step": step, "errno": getattr(error, "errno", None) or 0, "message": message, "status": status}}


def rebuild_error(message: Message) -> PylxcError:
    """Return the error that the other side described; `message` has the key `error`."""
    error = message["error"]
    return for_status(error["status"], error["message"])
