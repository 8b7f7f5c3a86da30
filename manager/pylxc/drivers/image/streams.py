"""The documents of a simplestreams server, read: which container images there are and which files they are made of.

All of it comes from elsewhere and may be anything: what is malformed is left out, what is hostile reaches nobody.

See: LXD 5.0 shared/simplestreams
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from pylxc.drivers.image.base import is_fingerprint, wire_image
from pylxc.errors import Internal
from pylxc.kernel.architecture import architecture_name, host_architectures
from pylxc.wire import images as wire
from pylxc.wire.times import NEVER, timestamp

File = tuple[str, str, int]
"""A file of an image: its path below the server's URL, quoted, and its part ("metadata", "rootfs") and bytes."""
Entry = tuple[wire.Image, list[File]]

_METADATA = ("lxd.tar.xz", "incus.tar.xz")
"""Kinds of metadata files; one suffices, as they go with the same root file systems."""
_ROOTFS = {
    "squashfs": ("combined_squashfs_sha256",),
    "root.tar.xz": ("combined_rootxz_sha256", "combined_sha256"),
}
"""Kinds of root file systems, the best first, and where the metadata's item has the fingerprint of both together."""
_COMBINED = ("lxd_combined.tar.gz", "incus_combined.tar.gz")
_DEFAULT_OS = {"cloud-images.ubuntu.com": "ubuntu"}
"""Hosts on which aliases need not name the system."""
_LONGEST = 1000


def product_paths(index: bytes, url: str) -> list[str]:
    """Return the paths of the documents that list images to be downloaded.

    Raises:
        Internal: it is no index.
    """
    entries = document(index, url, "index").values()
    found = [
        entry["path"]
        for entry in entries
        if isinstance(entry, dict) and entry.get("datatype") == "image-downloads" and _text(entry.get("path"))
    ]
    if not found:
        raise Internal(f"{url} lists no images to be downloaded")
    return found


def catalogue(documents: Iterable[tuple[str, bytes]], server: str) -> list[Entry]:
    """Return all container images, sorted as LXD sorts them: by system and release, the newest first.

    Args:
        documents: the URL and content of each list of products.
        server: their URL.

    Raises:
        Internal: one of them is no list of products.
    """
    entries = [entry for url, content in documents for entry in _images(document(content, url, "products"))]
    # Sorting is stable: of one version the better format stays before the others.
    entries.sort(key=lambda entry: (entry[0]["created_at"], entry[0]["properties"].get("serial", "")), reverse=True)
    entries.sort(key=lambda entry: (entry[0]["properties"].get("os", ""), entry[0]["properties"].get("release", "")))
    _name([image for image, _ in entries], _DEFAULT_OS.get(urlsplit(server).hostname or "", ""))
    return entries


def document(content: bytes, url: str, field: str) -> dict[str, Any]:
    """Return what a document has in `field`, which makes it one of its kind.

    Raises:
        Internal: it is no such document; `url` is named.
    """
    try:
        found = json.loads(content)[field]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        found = None
    if not isinstance(found, dict):
        raise Internal(f"{url} is no simplestreams document: it has no {field!r}")
    return found


def _images(products: Mapping[str, Any]) -> Iterator[Entry]:
    for product in products.values():
        if not isinstance(product, dict) or not isinstance(versions := product.get("versions"), dict):
            continue
        architecture = architecture_name(_text(product.get("arch")))
        if architecture is None:
            continue
        for name, version in versions.items():
            created_at = _date(name[:8]) if _text(name) else None
            items = version.get("items") if isinstance(version, dict) else None
            if created_at and isinstance(items, dict):
                for kind, fingerprint, files in _builds(items):
                    yield _image(product, name, version, kind, fingerprint, files, architecture, created_at), files


def _builds(items: Mapping[str, Any]) -> Iterator[tuple[str, str, list[File]]]:
    """Yield the images of a version, the best first: kind, fingerprint and files."""
    by_kind = {item["ftype"]: item for item in items.values() if isinstance(item, dict) and _text(item.get("ftype"))}
    metadata = next((by_kind[kind] for kind in _METADATA if kind in by_kind), None)
    if metadata:
        for kind, keys in _ROOTFS.items():
            fingerprint = next((print_ for key in keys if (print_ := _fingerprint(metadata.get(key)))), "")
            files = [_file(metadata, "metadata"), _file(by_kind.get(kind, {}), "rootfs")]
            if fingerprint and all(path for path, _, _ in files):
                yield kind, fingerprint, files
    for kind in _COMBINED:
        item = by_kind.get(kind, {})
        if (fingerprint := _fingerprint(item.get("sha256"))) and item.get("path"):
            yield "tar.gz", fingerprint, [_file(item, "metadata")]
            break


def _image(
    product: Mapping[str, Any],
    name: str,
    version: Mapping[str, Any],
    kind: str,
    fingerprint: str,
    files: list[File],
    architecture: str,
    created_at: dt.datetime,
) -> wire.Image:
    label = _text(version.get("label"))
    told = [_text(product.get(key)) for key in ("os", "release_title", "arch")]
    description = " ".join(text for text in (*told, f"({label})" if label else "", f"({name})") if text)
    properties = {
        "architecture": told[2],
        "description": description,
        "label": label,
        "os": told[0],
        "release": _text(product.get("release")),
        "serial": name,
        "type": kind,
        "variant": _text(product.get("variant")),
        "version": _text(product.get("version")),
    }
    requirements = product.get("lxd_requirements")
    if isinstance(requirements, dict):
        properties |= {f"requirements.{key}": _text(value) for key, value in requirements.items() if _text(key)}
    eol = _date(_text(product.get("support_eol")))
    aliases = _text(product.get("aliases")).split(",")
    return wire_image(
        aliases=[{"name": alias.strip(), "description": ""} for alias in aliases if alias.strip()],
        architecture=architecture,
        created_at=timestamp(created_at),
        expires_at=timestamp(eol, NEVER),
        filename=files[0][0].rpartition("/")[2],
        fingerprint=fingerprint,
        properties={key: value for key, value in properties.items() if value},
        size=sum(size for _, _, size in files),
        uploaded_at=timestamp(created_at),
    )


def _name(images: Iterable[wire.Image], default_os: str) -> None:
    """Give each alias to the first image of its architecture, and put that behind it unless it is the host's own."""
    own = host_architectures()[0]
    taken: set[tuple[str, str]] = set()
    for image in images:
        given: list[wire.ImageAlias] = []
        for alias in image["aliases"]:
            name = alias["name"].removeprefix(f"{default_os}/") if default_os else alias["name"]
            if (image["architecture"], name) in taken:
                continue
            taken.add((image["architecture"], name))
            if image["architecture"] == own:
                given.append({"name": name, "description": ""})
            given.append({"name": f"{name}/{image['properties']['architecture']}", "description": ""})
        image["aliases"] = given


def _file(item: Mapping[str, Any], part: str) -> File:
    size = item.get("size")
    known = size if isinstance(size, int) and size > 0 else 0
    return quote(_text(item.get("path")), safe="/:+~,;=@%"), part, known


def _fingerprint(value: object) -> str:
    return str(value) if is_fingerprint(value) else ""


def _text(value: object) -> str:
    """Return a text that may be shown and stored, "" for anything else."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST else ""


def _date(text: str) -> dt.datetime | None:
    """Return the beginning of the day that "20240131" or "2024-01-31" is."""
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError:
        return None
