from __future__ import annotations

import io
import os
import tarfile
import threading
from typing import Any

import pytest

from pylxc import tarstream


def read(content: bytes) -> list[tuple[tarstream.Member, bytes]]:
    """Return members and contents of an archive that comes through a pipe in small pieces."""
    source, sink = os.pipe()

    def write() -> None:
        with open(sink, "wb", buffering=0) as file:
            file.writelines(content[start : start + 700] for start in range(0, len(content), 700))

    writer = threading.Thread(target=write)
    writer.start()
    found = []
    try:
        reader = tarstream.Reader(lambda: os.read(source, 65536))
        for member in reader.members():
            parts: list[bytes] = []
            reader.content(member, lambda piece, into=parts: into.append(bytes(piece)))  # type: ignore[misc]
            found.append((member, b"".join(parts)))
    finally:
        while os.read(source, 65536):
            pass
        writer.join()
        os.close(source)
    return found


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_reads_what_tarfile_writes(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        name = "p/" * 40 + ("é" * 8 + "q" * 9 if form == tarfile.USTAR_FORMAT else "é" * 80)
        file = tarfile.TarInfo(name)
        file.size, file.uid, file.gid, file.mode, file.mtime = 1000, 1234, 5678, 0o4755, 99
        tar.addfile(file, io.BytesIO(b"k" * 1000))
        link = tarfile.TarInfo("s")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * (90 if form == tarfile.USTAR_FORMAT else 300)
        tar.addfile(link)
    (one, content), (two, nothing) = read(out.getvalue())
    assert (one.name, content) == (name.encode(), b"k" * 1000)
    assert (one.kind, one.uid, one.gid, one.mode, one.mtime) == (tarstream.FILE, 1234, 5678, 0o4755, 99)
    assert (two.kind, two.target, nothing) == (tarstream.SYMLINK, link.linkname.encode(), b"")


def test_tarfile_reads_what_it_writes() -> None:
    def member(name: bytes, kind: bytes, **fields: Any) -> tarstream.Member:
        made = tarstream.Member(name, kind)
        for key, value in fields.items():
            setattr(made, key, value)
        return made

    content = b"z" * 600
    archive = b"".join(
        (
            tarstream.header(member(b"dir", tarstream.DIRECTORY, mode=0o711)),
            tarstream.header(member(b"n" * 180, tarstream.FILE, size=600, uid=5_000_000, mtime=-5)),
            content,
            tarstream.padding(600),
            tarstream.header(member(b"odd-\xff", tarstream.SYMLINK, target=b"x" * 200)),
            tarstream.END,
        )
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        directory, file, link = tar
        assert (directory.isdir(), directory.mode) == (True, 0o711)
        assert (file.name, file.size, file.uid, file.mtime) == ("n" * 180, 600, 5_000_000, -5)
        assert tar.extractfile(file).read() == content  # type: ignore[union-attr]
        assert (os.fsencode(link.name), link.linkname) == (b"odd-\xff", "x" * 200)
    assert [found[0].name for found in read(archive)] == [b"dir", b"n" * 180, b"odd-\xff"]


def test_a_big_number_survives() -> None:
    member = tarstream.Member(b"big", tarstream.FILE)
    member.size = 20 << 30
    with tarfile.open(fileobj=io.BytesIO(tarstream.header(member))) as tar:
        found = tar.next()
        assert found is not None
        assert found.size == 20 << 30


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5000, b"\0" * 511 + b"x"])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="archive"):
        read(content)


def test_an_archive_that_breaks_off_is_refused() -> None:
    member = tarstream.Member(b"a", tarstream.FILE)
    member.size = 5000
    with pytest.raises(ValueError, match="breaks off"):
        read(tarstream.header(member) + b"x" * 3000)
