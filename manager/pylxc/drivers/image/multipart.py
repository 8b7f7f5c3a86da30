"""multipart/form-data read and written as it streams: how a split image travels. See: RFC 2046, section 5.1."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message

from pylxc.errors import Internal

_HEAD_BYTES = 1 << 16
"""Of the lines above a part, at most."""


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary that a Content-Type names, None for a body of one piece."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or not boundary:
        return None
    return boundary.encode("ascii", "replace")


def parts(chunks: Iterator[bytes], boundary: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of each part with the part's name.

    Raises:
        Internal: the body is malformed or has no end.
    """
    reader = _Reader(chunks)
    delimiter = b"\r\n--" + boundary
    reader.line(delimiter)
    while not reader.at(b"--"):
        reader.line(b"\r\n")
        name = _name(reader.line(b"\r\n\r\n"))
        for data in reader.until(delimiter):
            yield name, data


class _Reader:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b"\r\n"  # the first delimiter has no line before it

    def until(self, mark: bytes) -> Iterator[bytes]:
        """Yield what comes before the next `mark`, and step over it."""
        while True:
            data, found, rest = self._buffer.partition(mark)
            if found:
                self._buffer = rest
                yield data
                return
            kept = len(mark) - 1  # the mark may have begun
            if len(self._buffer) > kept:
                yield self._buffer[:-kept]
                self._buffer = self._buffer[-kept:]
            self._more()

    def line(self, mark: bytes) -> bytes:
        """Return what comes before the next `mark`, which is not far away, and step over it."""
        found = b""
        for data in self.until(mark):
            found += data
            if len(found) > _HEAD_BYTES:
                raise Internal("The image was sent in a malformed body")
        return found

    def at(self, text: bytes) -> bool:
        """Tell whether `text` comes next."""
        while len(self._buffer) < len(text):
            self._more()
        return self._buffer.startswith(text)

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise Internal("The image was sent in a body that has no end")
        self._buffer += chunk


def _name(fields: bytes) -> str:
    for line in fields.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            message = Message()
            message["Content-Disposition"] = value.strip()
            name = message.get_param("name", header="content-disposition")
            return name if isinstance(name, str) and name else "?"
    return "?"
