"""multipart/form-data in both directions, streamed: split images are sent and received so."""

from __future__ import annotations

import os

from pylxc.errors import Internal
from pylxc.wire import multipart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BLOCK = 1 << 18
_MAX_HEADER = 1 << 16


def encode(boundary: str, parts: Iterable[tuple[str, str, int]]) -> Iterator[bytes]:
    """Yield the body whose parts are (name, file name, descriptor to read)."""
    for name, filename, fd in parts:
        yield multipart.head(boundary, name, filename)
        while data := os.read(fd, _BLOCK):
            yield data
        yield multipart.PART_END
    yield multipart.tail(boundary)


def parameter(header: str, name: str) -> str:
    """Return the parameter `name` of a header's value such as `form-data; name="rootfs"`, empty when it has none."""
    for piece in header.split(";")[1:]:
        key, _, value = piece.strip().partition("=")
        if key.lower() == name:
            return value.strip('"')
    return ""


def decode(boundary: str, chunks: Iterable[bytes], start: Callable[[str, str], Callable[[bytes], object]]) -> None:
    """Take a body apart.

    Args:
        boundary: what separates the parts.
        chunks: the body.
        start: called with name and file name of every part; returns what the part's bytes are handed to.

    Raises:
        Internal: the body is malformed or ends early.
    """
    mark = os.fsencode(f"\r\n--{boundary}")
    source = iter(chunks)
    buffer = b"\r\n"
    sink: Callable[[bytes], object] | None = None
    while True:
        at = buffer.find(mark)
        if at < 0:
            # The end of the buffer may be the beginning of a mark.
            keep = len(buffer) - len(mark) + 1
            if sink and keep > 0:
                sink(buffer[:keep])
                buffer = buffer[keep:]
            buffer += _more(source)
            continue
        if sink:
            sink(buffer[:at])
        buffer = buffer[at + len(mark) :]
        while len(buffer) < 2:
            buffer += _more(source)
        if buffer.startswith(b"--"):
            return
        while b"\r\n\r\n" not in buffer:
            if len(buffer) > _MAX_HEADER:
                raise Internal("The server sent a malformed image")
            buffer += _more(source)
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        disposition = next(
            (line for line in os.fsdecode(head).split("\r\n") if line.lower().startswith("content-disposition:")), ""
        )
        sink = start(parameter(disposition, "name"), parameter(disposition, "filename"))
        buffer = b"" + buffer


def _more(source: Iterator[bytes]) -> bytes:
    data = next(source, b"")
    if not data:
        raise Internal("The server's answer ended early")
    return data
