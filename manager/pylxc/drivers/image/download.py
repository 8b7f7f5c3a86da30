"""Large files from elsewhere: streamed, resumed after a break, with progress. Hashing is the receiver's business."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pylxc.drivers.image.web import Broken, Response, Tries, Web, body
from pylxc.errors import Internal

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
