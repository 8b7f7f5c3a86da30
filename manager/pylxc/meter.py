"""How far work is that moves bytes, told a few times a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable

from pylxc.units import format_bytes

_PAUSE_SECONDS = 0.2


class Meter:
    """Counts bytes and tells of them as LXD words it: `rootfs: 45% (12.30MB/s)`.

    Args:
        tell: `tell(key, text, **numbers)`: what people are shown, and `processed` and `total` bytes, `speed` in bytes
            per second, and `percent` where the total is known.
        what: stands before the numbers; "" for nothing.
        total: bytes in all, 0 when nobody knows.
        key: what `tell` is given; ends in `_progress`.
    """

    def __init__(
        self, tell: Callable[..., object], what: str, total: int = 0, *, key: str = "download_progress"
    ) -> None:
        self._tell = tell
        self._key = key
        self._what = f"{what}: " if what else ""
        self._total = total
        self._processed = 0
        self._since = time.monotonic()
        self._told = 0.0

    def add(self, count: int) -> None:
        """Count `count` bytes more."""
        self._processed += count
        now = time.monotonic()
        if now - self._told < _PAUSE_SECONDS and self._processed != self._total:
            return
        self._told = now
        speed = int(self._processed / max(now - self._since, 1e-3))
        numbers = {"processed": self._processed, "total": self._total, "speed": speed}
        share = format_bytes(self._processed)
        if self._total:
            numbers["percent"] = 100 * self._processed // self._total
            share = f"{numbers['percent']}%"
        self._tell(self._key, f"{self._what}{share} ({format_bytes(speed)}/s)", **numbers)
