from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pylxc.client import codec, multipart, relay, tree
from pylxc.client.console import EscapeReader
from pylxc.errors import BadRequest, Internal

# -- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, 1, -1.5, 'é\n"', [], {}, {"a": [{"b": None}]}])
def test_codec_agrees_with_json(value: Any) -> None:
    assert codec.loads(codec.dumps(value)) == value
    assert json.loads(codec.dumps(value)) == value
    assert codec.loads(f" {json.dumps(value, indent=1)}\n") == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nul", "1 2", "{'a':1}"])
def test_codec_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.loads(text)


# -- multipart -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_multipart_survives_any_cut(size: int, tmp_path: Path) -> None:
    contents = {"metadata": b"m\r\n--bound\r\n", "rootfs": os.urandom(5000) + b"\r\n--b"}
    parts = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        parts.append((name, f"{name}.bin", os.open(tmp_path / name, os.O_RDONLY)))
    boundary = "bound" + "x" * 20
    body = b"".join(multipart.encode(boundary, parts))
    for _, _, fd in parts:
        os.close(fd)
    found: dict[str, bytes] = {}

    def start(name: str, filename: str) -> Callable[[bytes], None]:
        assert filename == f"{name}.bin"
        found[name] = b""

        def write(data: bytes) -> None:
            found[name] += data

        return write

    multipart.decode(boundary, (body[at : at + size] for at in range(0, len(body), size)), start)
    assert found == contents
    with pytest.raises(Internal):
        multipart.decode(boundary, [body[:-30]], start)


# -- trees ---------------------------------------------------------------------------------------------------------


def archive(*members: tuple[str, bytes | None, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, fields in members:
            info = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(info, key, value)
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


def test_tree_there_and_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "file").write_bytes(b"x" * 1000)
    (source / "d" / "file").chmod(0o4751)
    (source / ("long" * 60)).write_text("long name")
    (source / "link").symlink_to("d/file")
    os.link(source / "d" / "file", source / "again")
    with (source / "sparse").open("wb") as sparse:
        sparse.seek(4 << 20)
        sparse.write(b"end")
    old = 1_000_000_000_123_456_789
    for place in ("d/file", "link", "sparse", "d"):
        os.utime(source / place, ns=(old, old), follow_symlinks=False)
    (source / "d").chmod(0o500)
    target = tmp_path / "target"
    target.mkdir()
    tree.unpack(iter(list(tree.pack(str(source)))), str(target), "/")
    back = target / "source"
    assert (back / "d" / "file").read_bytes() == b"x" * 1000
    assert stat.S_IMODE((back / "d" / "file").stat().st_mode) == 0o751  # set-id bits do not come out of an instance
    assert stat.S_IMODE((back / "d").stat().st_mode) == 0o500
    assert os.readlink(back / "link") == "d/file"
    assert (back / ("long" * 60)).read_text() == "long name"
    assert (back / "again").samefile(back / "d" / "file")
    assert (back / "sparse").read_bytes() == bytes(4 << 20) + b"end"
    assert (back / "sparse").stat().st_blocks == (source / "sparse").stat().st_blocks
    assert all((back / place).lstat().st_mtime_ns == old for place in ("d/file", "link", "sparse", "d"))


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/evil", b"x", {})],
        [("a/../../evil", b"x", {})],
        [("evil", None, {"type": tarfile.LNKTYPE, "linkname": "../outside"})],
        [("evil", None, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})],
        [("evil", None, {"type": tarfile.SYMTYPE, "linkname": ".."}), ("evil/file", b"x", {})],
        [
            ("evil", None, {"type": tarfile.SYMTYPE, "linkname": ".."}),
            ("l", None, {"type": tarfile.LNKTYPE, "linkname": "evil/outside"}),
        ],
    ],
)  # fmt: skip
def test_hostile_archives_do_not_leave_the_target(members: list[Any], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "outside").write_text("secret")
    with pytest.raises((BadRequest, OSError)):
        tree.unpack(iter([archive(*members)]), str(target), "/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "target"]
    assert not (tmp_path / "evil").exists()


def test_only_what_was_asked_for_is_unpacked(tmp_path: Path) -> None:
    content = archive(("dir", None, {"type": tarfile.DIRTYPE}), ("dir/f", b"x", {}), (".bashrc", b"evil", {}))
    with pytest.raises(BadRequest, match=r"'\.bashrc' was not asked for"):
        tree.unpack(iter([content]), str(tmp_path), "/root/./dir/")
    assert [path.name for path in tmp_path.iterdir()] == ["dir"]


def test_symlink_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.write_text("secret")
    members: list[Any] = [
        ("f", None, {"type": tarfile.SYMTYPE, "linkname": str(outside)}),
        ("f", b"new", {"mode": 0o644}),
    ]
    tree.unpack(iter([archive(*members)]), str(target), "/")
    assert outside.read_text() == "secret"
    assert (target / "f").read_text() == "new"
    device = [("null", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})]
    with pytest.raises(BadRequest, match="'null' is no file"):
        tree.unpack(iter([archive(*device)]), str(target), "/")
    assert not (target / "null").exists()


def test_damaged_archive(tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        tree.unpack(iter([archive(("f", b"x" * 5000, {}))[:2000]]), str(tmp_path), "/")


# -- relays --------------------------------------------------------------------------------------------------------


def test_only_pipes_and_null_may_be_passed(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    null, file, master = (
        os.open("/dev/null", os.O_RDWR),
        os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR),
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY),
    )
    directory, zero = os.open(tmp_path, os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)
    assert [relay.may_be_passed(fd) for fd in (read_end, write_end, null)] == [True] * 3
    assert [relay.may_be_passed(fd) for fd in (file, master, directory, zero)] == [False] * 4
    os.set_blocking(read_end, False)
    assert not relay.may_be_passed(read_end)
    for fd in (read_end, write_end, null, file, master, directory, zero):
        os.close(fd)


@pytest.mark.parametrize("append", [False, True])
def test_relay_moves_everything(append: bool, tmp_path: Path) -> None:
    """Into a pipe of ours and out of one, slower than it comes; appending files take no splice."""
    data = os.urandom(3 << 20)
    (tmp_path / "in").write_bytes(data)
    source = os.open(tmp_path / "in", os.O_RDONLY)
    target = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else 0))
    (in_read, in_write), (out_read, out_write) = relay.make_pipe(), relay.make_pipe()
    done_read, done_write = os.pipe()

    def command() -> None:  # cat, in place of the guest
        while block := os.read(in_read, 10_000):
            os.write(out_write, block)
        os.close(out_write)
        os.write(done_write, b"d")

    thread = threading.Thread(target=command)
    thread.start()
    incoming = relay.Relay(source, in_write, own_source=False)
    outgoing = relay.Relay(out_read, target, own_source=True)
    relay.Loop([incoming, outgoing]).wait(done_read)
    outgoing.drain()
    thread.join()
    assert (tmp_path / "out").read_bytes() == data
    assert incoming.done
    for fd in (source, target, in_read, done_read, done_write):
        os.close(fd)


def test_relay_ends_when_nobody_reads() -> None:
    silent_read, silent_write = os.pipe()
    read_end, write_end = relay.make_pipe()
    done_read, done_write = os.pipe()
    one = relay.Relay(silent_read, write_end, own_source=False)
    os.close(read_end)
    os.write(done_write, b"d")
    relay.Loop([one]).wait(done_read)
    assert one.done
    for fd in (silent_read, silent_write, done_read, done_write):
        os.close(fd)


@pytest.mark.parametrize(
    ("typed", "sent", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x01q"], b"", True),
        ([b"x\x01", b"q"], b"x", True),
        ([b"\x01a\x01x"], b"\x01\x01x", False),
    ],
)
def test_escape_of_the_console(typed: list[bytes], sent: bytes, detached: bool) -> None:
    reader = EscapeReader()
    results = [reader.feed(keys) for keys in typed]
    assert b"".join(data for data, _ in results) == sent
    assert results[-1][1] is detached
