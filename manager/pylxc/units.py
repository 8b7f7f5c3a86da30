"""Sizes and durations in the forms that LXD's configuration takes."""

from __future__ import annotations

from pylxc.errors import BadRequest

_BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18}
_BYTES |= {f"{unit}iB": 1024 ** (power + 1) for power, unit in enumerate("KMGTPE")}


_MOST_DIGITS = 20
"""Of a number, at most: as many as 64 bits come to."""

_BITS = {"": 1, "bit": 1} | {f"{unit}bit": 1000 ** (power + 1) for power, unit in enumerate("kMGTPE")}
_BITS |= {f"{unit}ibit": 1024 ** (power + 1) for power, unit in enumerate("KMGTPE")}


def parse_bits(text: str) -> int:
    """Return the bits (a second) that `100Mbit`, `10Kibit`, `1000` name.

    Raises:
        BadRequest: `text` is no rate.
    """
    digits = text.rstrip("bitkKMGTPE ")
    unit = text[len(digits) :].strip()
    if not digits.isdecimal() or len(digits) > _MOST_DIGITS or unit not in _BITS:
        raise BadRequest(f"Invalid rate {text!r}", hint="a number with bit, kbit, Mbit, Gbit, Kibit, ...")
    bits: int = int(digits) * _BITS[unit]
    return bits


def parse_bytes(text: str) -> int:
    """Return the bytes that `10GiB`, `512MB`, `1024` name.

    Raises:
        BadRequest: `text` is no size.
    """
    digits = text.rstrip("BkKMGTPEi ")
    unit = text[len(digits) :].strip()
    if not digits.isdecimal() or len(digits) > _MOST_DIGITS or unit not in _BYTES:
        raise BadRequest(f"Invalid size {text!r}", hint="a number with B, kB, MB, GB, KiB, MiB, GiB, ...")
    return int(digits) * _BYTES[unit]


def format_bytes(count: float, precision: int = 2) -> str:
    """Return `count` bytes as LXD's tables print it: decimal units, `123.45MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(count) < 1000 or unit == "PB":
            return f"{count:.0f}{unit}" if unit == "B" else f"{count:.{precision}f}{unit}"
        count /= 1000
    raise AssertionError("not reached")


def binary_size(count: float, precision: int = 2) -> str:
    """Return `count` bytes in binary units: `1.09MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":
            return f"{int(count)}B" if unit == "B" else f"{count:.{precision}f}{unit}"
        count /= 1024
    raise AssertionError("not reached")
