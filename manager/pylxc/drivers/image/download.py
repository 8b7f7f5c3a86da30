"""Large files from elsewhere: streamed, resumed after a break, with progress. Hashing is the receiver's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from pylxc.drivers.image.base import Progress
from pylxc.drivers.image.web import Broken, Response, Tries, Web, body
from pylxc.errors import Internal
from pylxc.units import format_bytes

_REPORT_SECONDS = 0.2

Piece = tuple[int, str, bytes]
"""Where in the whole it begins, the part that it belongs to, and the bytes."""


def file_pieces(web: Web, url: str, size: int = 0) -> Iterator[bytes]:
    """Yield the bytes of the file at `url`.

    Args:
        web: what to ask by.
        url: https.
        size: bytes that it must have; 0 when nobody knows.

    Raises:
        Internal: it has another size, or breaks off again and again.
        PylxcError: what `Web.open` raises.
    """
    validator = ""

    def attempt(offset: int) -> Iterator[Piece]:
        nonlocal validator
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        headers |= {"If-Range": validator} if offset and validator else {}
        with web.open("GET", url, headers) as response:
            validator = validator or _validator(response)
            position = offset if response.status == 206 else 0
            for chunk in body(response, url):
                yield position, "", chunk
                position += len(chunk)

    received = 0
    for _, chunk in resumed(web, attempt):
        received += len(chunk)
        if size and received > size:
            raise Internal(f"{url} is longer than the {size} bytes that it should have")
        yield chunk
    if received < size:
        raise Internal(f"{url} ends after {received} of {size} bytes")


def resumed(web: Web, attempt: Callable[[int], Iterator[Piece]]) -> Iterator[tuple[str, bytes]]:
    """Yield what `attempt` yields, each byte once, however often it breaks.

    Args:
        web: whose cancel ends the waiting between tries.
        attempt: `attempt(offset)` yields the whole in order, if it can from `offset` on only.

    Raises:
        Broken: nothing has come through in several tries.
    """
    received = 0
    tries = Tries(web.check_cancelled)
    while True:
        try:
            for position, part, chunk in attempt(received):
                new = chunk[max(0, received - position) :]
                received = max(received, position + len(chunk))
                if new:
                    tries.came(len(new))
                    yield part, new
        except Broken as error:
            tries.pause(error)
        else:
            return


def _validator(response: Response) -> str:
    """Return what tells that a file is still the same: a strong ETag, else its date, "" for nothing."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


class Meter:
    """Tells how far the transfer of one part is, as LXD words it.

    Args:
        progress: is told, a few times per second at most.
        part: "metadata" or "rootfs".
        total: bytes, 0 when nobody knows.
    """

    def __init__(self, progress: Progress, part: str, total: int) -> None:
        self._progress = progress
        self._part = part
        self._total = total
        self._processed = 0
        self._since = time.monotonic()
        self._told = 0.0

    def add(self, count: int) -> None:
        """Count `count` bytes more."""
        self._processed += count
        now = time.monotonic()
        if now - self._told < _REPORT_SECONDS and self._processed != self._total:
            return
        self._told = now
        speed = int(self._processed / max(now - self._since, 1e-3))
        numbers = {"processed": self._processed, "total": self._total, "speed": speed}
        share = format_bytes(self._processed)
        if self._total:
            numbers["percent"] = 100 * self._processed // self._total
            share = f"{numbers['percent']}%"
        self._progress("download_progress", f"{self._part}: {share} ({format_bytes(speed)}/s)", **numbers)
