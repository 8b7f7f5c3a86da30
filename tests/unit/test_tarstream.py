from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from pathlib import Path
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
            whole = bytearray(member.size)
            for offset, piece in reader.content(member):
                whole[offset : offset + len(piece)] = piece
            found.append((member, bytes(whole)))
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
    assert (one.kind, one.uid, one.gid, one.mode, one.mtime) == (tarstream.FILE, 1234, 5678, 0o4755, 99 * 10**9)
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
            tarstream.header(member(b"n" * 180, tarstream.FILE, size=600, uid=5_000_000, mtime=-5 * 10**9)),
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


@pytest.mark.parametrize("mtime", [0, 1, 10**18 + 123_456_789, -1, -(10**9), -1_500_000_000, 9 * 10**18, 2**63 - 1])
def test_times(mtime: int) -> None:
    member = tarstream.Member(b"a", tarstream.FILE)
    member.mtime = mtime
    ((found, _),) = read(tarstream.header(member) + tarstream.END)
    assert found.mtime == mtime


def test_times_that_no_system_call_takes() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        file = tarfile.TarInfo("far")
        file.mtime = 1 << 60
        tar.addfile(file)
    ((found, _),) = read(out.getvalue())
    assert found.mtime == 2**63 - 1


@pytest.mark.parametrize("name", [b"new\nline\n", b"\xff" * 150, b"=" * 101, b"d/" * 800 + b"x"])
def test_odd_names(name: bytes) -> None:
    member = tarstream.Member(name, tarstream.SYMLINK)
    member.target = name
    ((found, _),) = read(tarstream.header(member) + tarstream.END)
    assert (found.name, found.target) == (name, name)


SPARSE: tuple[tuple[tuple[tuple[int, bytes], ...], int], ...] = (
    (((0, b"begin"), (1 << 20, b"m" * 5000), (2 << 20, b"end")), (2 << 20) + 3),
    (((1 << 20, b"x"),), 3 << 20),  # a hole at the end
    ((), 1 << 20),
)


@pytest.mark.parametrize(("content", "size"), SPARSE)
def test_holes(content: tuple[tuple[int, bytes], ...], size: int, tmp_path: Path) -> None:
    """There and back, and to and from GNU tar."""
    path = tmp_path / ("long" * 50)
    with path.open("wb") as file:
        for offset, data in content:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    member = tarstream.Member(os.fsencode(path.name), tarstream.FILE)
    with path.open("rb") as file:
        tarstream.measure(member, file.fileno())
        assert member.extents is not None
        data = b"".join(os.pread(file.fileno(), length, offset) for offset, length in member.data)
    archive = tarstream.header(member) + data + tarstream.padding(len(data)) + tarstream.END
    assert len(archive) < 64 << 10
    theirs = subprocess.run(
        ["tar", "--format=posix", "--sparse", "-C", tmp_path, "-c", path.name], stdout=subprocess.PIPE, check=True
    ).stdout
    for one in (archive, theirs):
        ((found, back),) = read(one)
        assert (found.name, found.size, back) == (os.fsencode(path.name), size, path.read_bytes())
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "out", "-x"], input=archive, check=True)
    unpacked = tmp_path / "out" / path.name
    assert unpacked.read_bytes() == path.read_bytes()
    assert unpacked.stat().st_blocks == path.stat().st_blocks


@pytest.mark.parametrize(
    "text",
    [
        b"1\n0\n",
        b"1\n-5\n10\n",
        b"1\n0\n999999999\n",
        b"2\n10\n5\n0\n5\n",
        b"x\n",
        b"\n",
        b"9999999999\n",
        b"1\n9" * 300,
    ],
)
def test_maps_that_lie(text: bytes) -> None:
    member = tarstream.Member(b"f", tarstream.FILE)
    member.size, member.extents = 100, [(0, 10)]
    head = tarstream.header(member)
    bad = head[: -tarstream.BLOCK] + text + tarstream.padding(len(text))
    with pytest.raises(ValueError, match=r"archive|breaks"):
        read(bad + b"z" * 10 + tarstream.padding(10) + tarstream.END)


def test_other_formats_for_holes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    os.truncate(tmp_path / "f", 1 << 20)
    for words in (("--format=gnu",), ("--format=posix", "--sparse-version=0.1")):
        made = subprocess.run(
            ["tar", *words, "-S", "-C", tmp_path, "-c", "f"], stdout=subprocess.PIPE, check=True
        ).stdout
        with pytest.raises(ValueError, match=r"only 1\.0"):
            read(made)


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
