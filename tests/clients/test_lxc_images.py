"""`lxc image ...` against the daemon: what it gives against LXD."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.clients.conftest import Lxc
from tests.support.daemon import unique


def fingerprint_of(lxc: Lxc, name: str) -> str:
    """Return the fingerprint of an image as `image info` shows it."""
    return str(lxc("image", "info", name).stdout.splitlines()[0]).removeprefix("Fingerprint: ")


def refusal(lxc: Lxc, *words: str, **options: object) -> str:
    """Return the one line by which `lxc` says no."""
    result = lxc(*words, check=False, **options)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return str(line).removeprefix("Error: ")


def test_show_and_edit(lxc: Lxc, image: str) -> None:
    text = lxc("image", "show", image).stdout
    shown = yaml.safe_load(text)
    assert (shown["auto_update"], shown["public"], shown["profiles"]) == (False, False, ["default"])
    edited = text.replace("public: false", "public: true").replace("properties:", "properties:\n  colour: blue")
    lxc("image", "edit", image, input=edited)
    assert "Public: yes" in lxc("image", "info", image).stdout
    assert lxc("image", "get-property", image, "colour").stdout == "blue\n"
    assert "yaml" in refusal(lxc, "image", "edit", image, input="properties: [")
    lxc("image", "edit", image, input=text)
    assert lxc("image", "show", image).stdout == text
    assert refusal(lxc, "image", "get-property", image, "colour") == "Property not found"


@pytest.mark.parametrize("command", ["info", "show", "edit", "delete", "export"])
def test_an_image_that_is_not_there(lxc: Lxc, image: str, command: str, tmp_path: Path) -> None:
    result = lxc("image", command, unique("none"), check=False, cwd=tmp_path)
    assert (result.returncode, result.stderr.strip()) == (1, "Error: Image not found")
    assert list(tmp_path.iterdir()) == []


def test_prefixes_of_fingerprints(lxc: Lxc, image: str) -> None:
    fingerprint = fingerprint_of(lxc, image)
    assert fingerprint_of(lxc, fingerprint[:7]) == fingerprint


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["os=Busybox"], True),
        (["os=busy.*", "architecture=x86_64"], False),
        (["os=Busy.*", "architecture=x86_64"], True),
        (["r=bookworm"], True),
        (["os=Debian"], False),
        (["type=container"], True),
        (["public=true"], False),
    ],
)
def test_filters(lxc: Lxc, image: str, filters: list[str], found: bool) -> None:
    fingerprint = fingerprint_of(lxc, image)
    listed = json.loads(lxc("image", "list", *filters, "--format", "json").stdout)
    assert [one["fingerprint"] for one in listed] == [fingerprint] * found
    assert [one["fingerprint"] for one in json.loads(lxc("image", "list", image, "--format", "json").stdout)] == [
        fingerprint
    ]


def test_columns(lxc: Lxc, image: str) -> None:
    fingerprint = fingerprint_of(lxc, image)
    line = lxc("image", "list", image, "--columns", "lfFpat", "--format", "csv").stdout
    assert line == f"{image},{fingerprint[:12]},{fingerprint},no,x86_64,CONTAINER\n"


def test_aliases(lxc: Lxc, image: str) -> None:
    fingerprint = fingerprint_of(lxc, image)
    first, second = f"{unique('a')}/x", f"{unique('b')}/y"
    lxc("image", "alias", "create", first, fingerprint)
    assert lxc("image", "alias", "list", first, "--format", "csv").stdout == f"{first},{fingerprint[:12]},CONTAINER,\n"
    assert "already exists" in refusal(lxc, "image", "alias", "create", first, fingerprint)
    assert "not found" in refusal(lxc, "image", "alias", "create", second, "f" * 12)
    lxc("image", "alias", "rename", first, second)
    assert refusal(lxc, "image", "alias", "rename", first, "x").endswith("not found")
    assert "already exists" in refusal(lxc, "image", "alias", "rename", second, image)
    assert f"- {second}" in lxc("image", "info", image).stdout
    lxc("image", "alias", "delete", second)
    assert refusal(lxc, "image", "alias", "delete", second).endswith("not found")


def test_export_and_import(lxc: Lxc, image: str, tmp_path: Path) -> None:
    fingerprint = fingerprint_of(lxc, image)
    lxc("image", "export", image, str(tmp_path / "named"))
    files = [tmp_path / "named", tmp_path / "named.root"]
    assert hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() == fingerprint
    assert "same fingerprint" in refusal(lxc, "image", "import", *map(str, files), "--alias", "other")
    assert lxc("image", "alias", "list", "other", "--format", "csv").stdout == ""


@pytest.fixture
def combined(tmp_path: Path) -> Path:
    """Return an image of one file, its metadata after the root file system as some tools have it."""
    root = tmp_path / "image"
    (root / "rootfs/bin").mkdir(parents=True)
    (root / "templates").mkdir()
    (root / "rootfs/bin/sh").write_text("none")
    metadata = {"architecture": "x86_64", "creation_date": 1700000000, "properties": {"os": unique("os")}}
    (root / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    with tarfile.open(tmp_path / "combined.tar.gz", "w:gz") as tar:
        tar.add(root / "rootfs", "rootfs")
        tar.add(root / "metadata.yaml", "metadata.yaml")
    return tmp_path / "combined.tar.gz"


def test_import_moves_aliases_and_sets_properties(lxc: Lxc, image: str, combined: Path) -> None:
    moved = unique("moved")
    lxc("image", "alias", "create", moved, fingerprint_of(lxc, image))
    lxc("image", "import", str(combined), "--alias", moved, "--public", "colour=blue")
    try:
        assert fingerprint_of(lxc, moved) == hashlib.sha256(combined.read_bytes()).hexdigest()
        shown = yaml.safe_load(lxc("image", "show", moved).stdout)
        assert (shown["public"], shown["properties"]["colour"]) == (True, "blue")
        created = next(line for line in lxc("image", "info", moved).stdout.splitlines() if "Created" in line)
        assert created.split()[1].startswith("2023/11/1")
    finally:
        lxc("image", "delete", moved)
    assert moved not in lxc("image", "list", "--format", "csv").stdout


def test_import_of_a_directory(lxc: Lxc, combined: Path) -> None:
    alias = unique("dir")
    lxc("image", "import", str(combined.parent / "image"), "--alias", alias)
    assert "Architecture: x86_64" in lxc("image", "info", alias).stdout
    lxc("image", "delete", alias)


def test_copies_go_to_other_servers_only(lxc: Lxc, image: str) -> None:
    assert refusal(lxc, "image", "copy", image, "local:") == "The source and target servers must be different"
