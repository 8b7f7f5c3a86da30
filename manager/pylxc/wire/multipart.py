"""multipart/form-data as images are sent by: what stands before, between and after the parts. See: RFC 2046."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

PART_END = b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A file of an image to be sent: `part` is its name ("metadata", "rootfs"), `filename` what it is called."""

    part: str
    path: str
    filename: str


def boundary() -> str:
    """Return a boundary that no part has in it."""
    return os.urandom(24).hex()


def content_type(boundary: str) -> str:
    """Return the Content-Type of a body with `boundary`."""
    return f"multipart/form-data; boundary={boundary}"


def head(boundary: str, name: str, filename: str) -> bytes:
    """Return what comes before the bytes of the part called `name`; `PART_END` comes after them."""
    disposition = f"Content-Disposition: form-data; name={quoted(name)}; filename={quoted(filename)}"
    return f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()


def tail(boundary: str) -> bytes:
    """Return what comes after all parts."""
    return f"--{boundary}--\r\n".encode()


def frames(boundary: str, files: Sequence[FilePart]) -> list[bytes]:
    """Return what comes before the bytes of each file, and after those of the last one."""
    heads = [head(boundary, file.part, file.filename) for file in files]
    return [heads[0], *(PART_END + following for following in heads[1:]), PART_END + tail(boundary)]


def quoted(text: str) -> str:
    """Return a name in quotes, without what a header cannot have."""
    escaped = "".join(c if c.isprintable() and c.isascii() else "_" for c in text).replace("\\", "_").replace('"', "_")
    return f'"{escaped}"'
