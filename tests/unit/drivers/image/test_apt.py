"""Reading the host's apt sources, in both of their forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylxc.drivers.image.apt import Source, host_sources, mirror

ONE_LINE = """
# deb http://commented/debian bookworm main
deb http://a.example/debian/ bookworm main contrib # tail
deb-src http://a.example/debian bookworm main
deb [arch=amd64 signed-by=/keys/b.gpg] https://b.example/debian-security bookworm-security main
deb cdrom:[Debian]/ bookworm main
"""
DEB822 = """
# a comment
Types: deb deb-src
URIs: https://c.example/debian
Suites: trixie
 trixie-updates
Components: main
Signed-By: /keys/c.gpg

Types: deb
URIs: https://off.example/debian
Suites: sid
Components: main
Enabled: no

Types: deb
URIs: https://d.example/ubuntu
Suites: noble
Components: main universe
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""


def write(root: Path) -> str:
    (root / "sources.list.d").mkdir()
    (root / "sources.list").write_text(ONE_LINE)
    (root / "sources.list.d/c.sources").write_text(DEB822)
    (root / "sources.list.d/ignored.save").write_text(ONE_LINE)
    return str(root)


def test_both_forms(tmp_path: Path) -> None:
    assert host_sources(write(tmp_path)) == [
        Source("http://a.example/debian/", "bookworm", ("main", "contrib")),
        Source("https://b.example/debian-security", "bookworm-security", ("main",), "/keys/b.gpg"),
        Source("cdrom:[Debian]/", "bookworm", ("main",)),
        Source("https://c.example/debian", "trixie", ("main",), "/keys/c.gpg"),
        Source("https://c.example/debian", "trixie-updates", ("main",), "/keys/c.gpg"),
        Source("https://d.example/ubuntu", "noble", ("main", "universe")),
    ]


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        ("debian", "http://a.example/debian"),
        ("debian-security", "https://b.example/debian-security"),
        ("ubuntu", "https://d.example/ubuntu"),
        ("raspbian", None),
    ],
)
def test_mirror(tmp_path: Path, archive: str, expected: str | None) -> None:
    assert mirror(host_sources(write(tmp_path)), archive) == expected


def test_no_apt(tmp_path: Path) -> None:
    assert host_sources(str(tmp_path / "missing")) == []
