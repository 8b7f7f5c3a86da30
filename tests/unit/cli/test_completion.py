"""What completion takes from the grammar, with no server to ask."""

from __future__ import annotations

import pytest

from pylxc.cli.completion import candidates
from pylxc.cli.main import ROOT, find  # noqa: F401


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PYLXC_DIR", str(tmp_path))
    monkeypatch.delenv("LXD_SOCKET", raising=False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lau", ["launch"]),
        ("help con", ["config", "console"]),
        ("help config tru", ["trust"]),
        ("help nothing ", []),
        ("list --format=j", ["--format=json"]),
        ("list --format j", ["json"]),
        ("list --nothing=j", []),
        ("wait c01 network po", ["port:"]),
        ("launch --wait=ipv", ["--wait=ipv4", "--wait=ipv6"]),
        ("config device add c01 x pr", ["proxy"]),
        ("exec c01 -- l", []),
        ("completion ", ["bash", "fish", "zsh"]),
        ("restore c01 ", []),
        ("file push ", [":files"]),
    ],
)
def test_words(line: str, expected: list[str]) -> None:
    assert [word for word, _ in candidates(line.split(" "))] == expected
