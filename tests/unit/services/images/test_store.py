"""The image files: whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pylxc.errors import BadRequest
from pylxc.services.images.store import Store


def put(store: Store, *parts: bytes) -> str:
    with store.stage() as staging:
        for name, content in zip(("metadata", "rootfs"), parts, strict=False):
            staging.begin(name)
            for start in range(0, len(content), 3):
                staging.write(content[start : start + 3])
        return store.put(staging)


def test_fingerprint_of_a_unified_image(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "images"))
    fingerprint = put(store, b"content")
    assert fingerprint == hashlib.sha256(b"content").hexdigest()
    assert os.listdir(store.root) == [fingerprint]
    assert store.has(fingerprint)
    assert not store.is_split(fingerprint)
    assert (tmp_path / "images").stat().st_mode & 0o777 == 0o700


def test_fingerprint_of_a_split_image(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fingerprint = put(store, b"meta", b"root")
    assert fingerprint == hashlib.sha256(b"metaroot").hexdigest()
    assert sorted(os.listdir(tmp_path)) == [fingerprint, f"{fingerprint}.rootfs"]
    assert store.is_split(fingerprint)


def test_files_that_lie_there_are_taken(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with store.stage() as staging:
        for part in ("metadata", "rootfs"):
            Path(f"{staging.directory}/built-{part}").write_text(part)
            staging.add(part, f"{staging.directory}/built-{part}")
        assert store.put(staging) == hashlib.sha256(b"metadatarootfs").hexdigest()


def test_what_is_not_put_is_gone(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with store.stage() as staging:
        staging.begin("metadata")
        staging.write(b"half")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("parts", [("rootfs",), ("metadata", "metadata"), ("metadata", "rootfs", "rootfs"), ("other",)])
def test_order_of_parts(tmp_path: Path, parts: tuple[str, ...]) -> None:
    *good, bad = parts
    with Store(str(tmp_path)).stage() as staging:
        for part in good:
            staging.begin(part)
        with pytest.raises(BadRequest):
            staging.begin(bad)


def test_sweep(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    kept, lost = put(store, b"meta", b"root"), put(store, b"one")
    forgotten = put(store, b"two", b"root")
    os.unlink(store.metadata_path(lost))
    store.stage()
    (tmp_path / "notes.txt").touch()
    assert store.sweep([kept, lost]) == [lost]
    assert sorted(os.listdir(tmp_path)) == sorted([kept, f"{kept}.rootfs", "notes.txt"])
    assert not store.has(forgotten)


def test_delete(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fingerprint = put(store, b"meta", b"root")
    store.delete(fingerprint)
    store.delete(fingerprint)
    assert os.listdir(tmp_path) == []
