"""A file that a command writes is there when it is whole; what is no file is written to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pylxc.cli.new_file import NewFile


def test_it_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path, link = tmp_path / "a.tar", tmp_path / "link"
    path.write_text("old")
    link.symlink_to("a.tar")
    with NewFile(str(link), 0o600) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "link"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.tar"
    path.write_text("old")

    def fail() -> None:
        with NewFile(str(path)) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.tar"]


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with NewFile(pipe) as file:
        file.write(b"all")
    assert os.read(reader, 10) == b"all"
    os.close(reader)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("name", ["missing/a.tar", "."])
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/{name}"
    with pytest.raises(OSError) as caught:  # noqa: PT011  (which one is not the point)
        NewFile(path)
    assert caught.value.filename == path
    assert os.listdir(tmp_path) == []
