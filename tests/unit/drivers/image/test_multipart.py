"""multipart/form-data, however it is cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pylxc.drivers.image.multipart import boundary_of, parts
from pylxc.errors import Internal

BODY = (
    b'--xyz\r\nContent-Disposition: form-data; name="metadata"; filename="meta-1.tar.xz"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
    b"a\r\n--xy\r\nb\r\n--xyz\r\n"
    b'content-disposition: form-data; name=rootfs\r\n\r\n\x00\r\n\r\n--\r\n--xyz--\r\n'
)  # fmt: skip
WANTED = {"metadata": b"a\r\n--xy\r\nb", "rootfs": b"\x00\r\n\r\n--"}


def cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\nepilogue"])
def test_parts(size: int, end: bytes) -> None:
    found: dict[str, bytes] = {}
    for name, data in parts(cut(BODY.removesuffix(b"\r\n") + end, size), b"xyz"):
        found[name] = found.get(name, b"") + data
    assert found == WANTED
    assert list(found) == ["metadata", "rootfs"]


@pytest.mark.parametrize("body", [b"", b"rubbish", BODY[:40], BODY[:-12], b"--xyz\r\n" + b"x" * 100_000])
def test_broken(body: bytes) -> None:
    with pytest.raises(Internal, match="body"):
        list(parts(cut(body, 1000), b"xyz"))


def test_boundary() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
    assert boundary_of("multipart/form-data; boundary=xyz") == b"xyz"
    assert boundary_of("application/octet-stream") is None
    assert boundary_of("multipart/form-data") is None
