from __future__ import annotations

from typing import Any

import pytest

from pylxc.cli.image_list import matches

IMAGE: dict[str, Any] = {
    "fingerprint": "d0e3a2" + "0" * 58,
    "aliases": [{"name": "22.04"}, {"name": "jammy/amd64"}],
    "architecture": "x86_64",
    "public": True,
    "type": "container",
    "properties": {"architecture": "amd64", "os": "ubuntu", "release": "jammy", "version": "22.04", "user.note": "x"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22.04", True),
        ("jam", True),
        ("e3a2", True),
        ("focal", False),
        ("arch=amd64", True),
        ("architecture=x86_64", True),
        ("arch=arm64", False),
        ("os=ubuntu", True),
        ("os=ubunt", False),
        ("os=ubu.*", True),
        ("release=^jam", True),
        ("u.n=x", True),
        ("type=container", True),
        ("public=true", True),
        ("public=false", False),
        ("os=(", False),
        ("nothing=", False),
    ],
)
def test_filters(text: str, expected: bool) -> None:
    assert matches(IMAGE, text) is expected
