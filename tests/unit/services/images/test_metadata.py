"""What an image says about itself."""

from __future__ import annotations

import os

import pytest

from pylxc.errors import BadRequest
from pylxc.kernel.architecture import architecture_name
from pylxc.services.images import metadata

OWN = os.uname().machine


def parse(**fields: object) -> metadata.ImageMetadata:
    return metadata.parse(repr({"architecture": OWN, "creation_date": 1_700_000_000} | fields).encode())


def test_json_and_yaml() -> None:
    text = f'{{"architecture": "{OWN}", "creation_date": 1, "properties": {{"a": 1, "b": true, "c": null}}}}'
    found = metadata.parse(text.encode())
    assert found.created_at.timestamp() == 1
    assert found.properties == {"a": "1", "b": "true", "c": ""}
    assert metadata.parse(f"architecture: {OWN}\ncreation_date: 1\n".encode()).properties == {}


def test_properties_are_texts_as_they_are_written() -> None:
    text = f"""\
architecture: {OWN}
creation_date: 1_700_000_000
properties:
  release: 22.10
  serial: 20240101_07:42
  since: 2024-01-01
  minor: 010
  answer: yes
  none: ~
  word: "null"
  empty:
"""
    assert metadata.parse(text.encode()).properties == {
        "release": "22.10",
        "serial": "20240101_07:42",
        "since": "2024-01-01",
        "minor": "010",
        "answer": "yes",
        "none": "",
        "word": "null",
        "empty": "",
    }


def test_other_names_of_an_architecture() -> None:
    assert architecture_name("amd64") == "x86_64"
    assert architecture_name("arm64") == "aarch64"
    assert architecture_name("vax") is None


def test_expiry() -> None:
    assert parse().expires_at is None
    assert parse(expiry_date=0).expires_at is None
    expires_at = parse(expiry_date=1_800_000_000).expires_at
    assert expires_at
    assert expires_at.timestamp() == 1_800_000_000


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"architecture": ""}, "unknown architecture"),
        ({"architecture": ["x86_64"]}, "architecture has something other than text"),
        ({"architecture": "s390x" if OWN != "s390x" else "x86_64"}, "this host runs"),
        ({"creation_date": 0}, "creation_date"),
        ({"creation_date": True}, "creation_date"),
        ({"creation_date": "soon"}, "creation_date"),
        ({"creation_date": 1e300}, "too far away"),
        ({"properties": ["a"]}, "properties"),
        ({"properties": {"a": ["nested"]}}, "properties"),
        ({"templates": {"/etc/hosts": "text"}}, "/etc/hosts is no map"),
        ({"templates": {"/etc/hosts": {"when": "create"}}}, "'when' of '/etc/hosts' is no list"),
    ],
)
def test_refused(fields: dict[str, object], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        parse(**fields)


@pytest.mark.parametrize("content", [b"", b"[]", b"a: [", b"\xff\xfe", b"a: !!python/object:os.system x", b"x" * 2**21])
def test_no_map(content: bytes) -> None:
    with pytest.raises(BadRequest):
        metadata.parse(content)


def test_anchors_do_not_grow() -> None:
    """The billion laughs of YAML are refused before they are written out."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    text = "\n".join([f"architecture: {OWN}", "creation_date: 1", *lines, "properties: {laugh: *i}"])
    with pytest.raises(BadRequest, match="properties"):
        metadata.parse(text.encode())
