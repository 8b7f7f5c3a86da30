"""What a recipe's packages come from, by the sources that a host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylxc.drivers.image import archives
from pylxc.drivers.image.apt import Source, host_sources
from pylxc.drivers.image.recipe_file import Recipe, RecipeBook
from pylxc.errors import BadRequest, Internal
from pylxc.resources import resource_dir

UBUNTU = """
Types: deb
URIs: http://de.archive.ubuntu.com/ubuntu/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Types: deb
URIs: http://security.ubuntu.com/ubuntu/
Suites: noble-security
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""
"""/etc/apt/sources.list.d/ubuntu.sources of Ubuntu 24.04."""

KEYRING = "ubuntu-archive-keyring.gpg"


@pytest.fixture
def keyrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of key rings that the code takes for the host's."""
    monkeypatch.setattr(archives, "_KEYRINGS", str(tmp_path))
    return tmp_path


@pytest.fixture
def ubuntu_host(tmp_path: Path, keyrings: Path) -> list[Source]:
    (keyrings / KEYRING).touch()
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "ubuntu.sources").write_text(UBUNTU)
    return host_sources(str(tmp_path))


def recipe(alias: str) -> Recipe:
    return RecipeBook(str(resource_dir("images"))).find(alias)


def test_ubuntu_on_an_ubuntu_host(ubuntu_host: list[Source], keyrings: Path) -> None:
    found = archives.sources(recipe("ubuntu/22.04"), "amd64", ubuntu_host)
    assert [archives.one_line(source) for source in found] == [
        f"deb [signed-by={keyrings}/{KEYRING}] http://de.archive.ubuntu.com/ubuntu {suite} main universe"
        for suite in ("jammy", "jammy-updates", "jammy-security")
    ]
    assert archives.deb822(found).count(f"Signed-By: {keyrings}/{KEYRING}\n") == 3


def test_ubuntu_on_another_host(keyrings: Path) -> None:
    (keyrings / KEYRING).touch()
    (first, *_) = archives.sources(recipe("ubuntu/noble"), "amd64", [Source("http://x/debian", "bookworm", ("main",))])
    assert (first.uri, first.suite) == ("http://archive.ubuntu.com/ubuntu", "noble")


def test_other_architectures_have_another_archive(ubuntu_host: list[Source]) -> None:
    found = archives.sources(recipe("ubuntu/24.04"), "arm64", ubuntu_host)
    assert {source.uri for source in found} == {"http://ports.ubuntu.com/ubuntu-ports"}


def test_without_the_keys(keyrings: Path) -> None:
    with pytest.raises(Internal) as refused:
        archives.sources(recipe("ubuntu/24.04/cloud"), "amd64", [])
    assert refused.value.args[0] == (
        f"The recipe 'ubuntu-24.04/cloud' needs the key ring {keyrings}/{KEYRING}, which is missing"
    )
    assert refused.value.hint == "the package ubuntu-keyring has it"


def test_unknown_archive(tmp_path: Path) -> None:
    text = "description: x\nos: X\nrelease: 1\narchive: raspbian\nsuites: [bookworm]\n"
    own = RecipeBook(str(tmp_path)).read("own", text)
    with pytest.raises(BadRequest, match="no mirror of 'raspbian' is known"):
        archives.sources(own, "armhf", [])
    (found,) = archives.sources(own, "armhf", [Source("http://m/raspbian", "bookworm", ("main",))])
    assert found.uri == "http://m/raspbian"


def test_a_mirror_on_the_host_itself_is_none_for_guests() -> None:
    found = [Source("http://127.0.0.1:3142/debian", "bookworm", ("main",), "/k.gpg")]
    assert "URIs: http://deb.debian.org/debian\n" in archives.deb822(found)
