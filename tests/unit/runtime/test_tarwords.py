"""Names in archives, as tar itself changes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pylxc.runtime.tarwords import renamed


@pytest.mark.parametrize("name", ["plain", "a.b", "a+b", "a*[b]", "a,b", "a&b", "a^b$", "a\\1", "ä b"])
def test_whole_names_are_renamed(tmp_path: Path, name: str) -> None:
    for path in (f"{name}/in", f"{name}x/in"):
        (tmp_path / path).mkdir(parents=True)
    argv = ["tar", "-c", "--no-unquote", renamed(name, "new"), "-C", str(tmp_path), "--", name, f"{name}x"]
    packed = subprocess.run(argv, check=True, capture_output=True).stdout
    listed = ["tar", "-t", "--quoting-style=literal"]
    there = subprocess.run(listed, input=packed, check=True, capture_output=True).stdout.decode()
    assert there.splitlines() == ["new/", "new/in/", f"{name}x/", f"{name}x/in/"]
    (tmp_path / "out").mkdir()
    back = ["tar", "-x", renamed("new", name), "-C", str(tmp_path / "out"), "--", "new"]
    subprocess.run(back, input=packed, check=True)
    assert [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")] == [name, f"{name}/in"]
