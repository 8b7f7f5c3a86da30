"""Simplestreams documents, good and hostile."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from pylxc.drivers.image import streams
from pylxc.errors import Internal

URL = "https://example.org/streams/v1/x.json"
A, B, C, D = ("abcd"[number] * 64 for number in range(4))
OWN = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def item(ftype: str, **fields: Any) -> dict[str, Any]:
    return {"ftype": ftype, "path": f"some/{ftype}", "size": 10, "sha256": D, **fields}


def product(versions: dict[str, list[Any]], **fields: Any) -> dict[str, Any]:
    made = {name: {"items": {str(number): one for number, one in enumerate(items)}} for name, items in versions.items()}
    return {"arch": OWN, "os": "ubuntu", "release": "r", "aliases": "a", "versions": made, **fields}


def catalogue(*products: Any, server: str = "https://example.org") -> list[streams.Entry]:
    text = json.dumps({"products": {str(number): one for number, one in enumerate(products)}})
    return streams.catalogue([(URL, text.encode())], server)


def prints(entries: list[streams.Entry]) -> list[str]:
    return [image["fingerprint"] for image, _ in entries]


METADATA = item("lxd.tar.xz", combined_squashfs_sha256=A, combined_rootxz_sha256=B, combined_sha256=C)


def test_files_of_a_version() -> None:
    both = catalogue(product({"20240101": [METADATA, item("root.tar.xz"), item("squashfs"), item("disk-kvm.img")]}))
    assert prints(both) == [A, B]  # the better one first: it gets the aliases
    assert [len(image["aliases"]) for image, _ in both] == [2, 0]
    assert both[0][1] == [("some/lxd.tar.xz", "metadata", 10), ("some/squashfs", "rootfs", 10)]
    assert both[0][0]["size"] == 20
    older = item("lxd.tar.xz", combined_sha256=C)
    assert prints(catalogue(product({"20240101": [older, item("root.tar.xz")]}))) == [C]
    combined = item("lxd_combined.tar.gz", sha256=B)
    assert prints(catalogue(product({"20240101": [combined]}))) == [B]


def test_incus_beside_lxd() -> None:
    """The same root file system twice is one image; Incus' name alone will do."""
    incus = item("incus.tar.xz", combined_squashfs_sha256=D)
    assert prints(catalogue(product({"20240101": [incus, item("squashfs"), METADATA]}))) == [A]
    assert prints(catalogue(product({"20240101": [incus, item("squashfs")]}))) == [D]


def test_newest_first_and_aliases_once() -> None:
    def version(print_: str) -> list[dict[str, Any]]:
        return [item("lxd_combined.tar.gz", sha256=print_)]

    found = catalogue(
        product({"20240101": version(A), "20240301_07:42": version(B), "20240201": version(C)}),
        product({"20240401": version(D)}, release="q"),
    )
    assert prints(found) == [D, B, C, A]
    assert [alias["name"] for alias in found[0][0]["aliases"]] == ["a", f"a/{OWN}"]
    assert [image["aliases"] for image, _ in found[1:]] == [[], [], []]


def test_default_system_of_ubuntu() -> None:
    """On Ubuntu's own server aliases need not name the system."""
    one = product({"20240101": [item("lxd_combined.tar.gz")]}, aliases="ubuntu/22.04,debian/12")
    for server, wanted in (("https://cloud-images.ubuntu.com/releases", "22.04"), ("https://x.org", "ubuntu/22.04")):
        (image, _), *_ = catalogue(one, server=server)
        assert [alias["name"] for alias in image["aliases"]] == [
            wanted,
            f"{wanted}/{OWN}",
            "debian/12",
            f"debian/12/{OWN}",
        ]


def test_what_an_image_says() -> None:
    more = {"release_title": "22.04 LTS", "support_eol": "2032-04-21", "variant": "default", "version": "22.04"}
    one = product({"20240101": [item("lxd_combined.tar.gz")]}, lxd_requirements={"secureboot": "false"}, **more)
    (image, _), *_ = catalogue(one)
    assert image["properties"] == {
        "architecture": OWN,
        "description": f"ubuntu 22.04 LTS {OWN} (20240101)",
        "os": "ubuntu",
        "release": "r",
        "requirements.secureboot": "false",
        "serial": "20240101",
        "type": "tar.gz",
        "variant": "default",
        "version": "22.04",
    }
    assert image["expires_at"] == "2032-04-21T00:00:00Z"


GOOD = product({"20240101": [item("lxd_combined.tar.gz", sha256=A)]})


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "text",
        {"versions": []},
        {**GOOD, "arch": "vax"},
        {**GOOD, "arch": ["amd64"]},
        {**GOOD, "versions": {"2024": GOOD["versions"]["20240101"]}},
        {**GOOD, "versions": {"20249999": GOOD["versions"]["20240101"]}},
        {**GOOD, "versions": {"20240101": {"items": []}}},
        product(
            {"20240101": ["text", {"ftype": 5}, {"ftype": "lxd_combined.tar.gz", "sha256": "../../x", "path": "p"}]}
        ),
        product({"20240101": [METADATA, item("squashfs", path=5), item("root.tar.xz", path="a\nb")]}),
        product({"20240101": [item("lxd.tar.xz", combined_squashfs_sha256="A" * 64), item("squashfs")]}),
    ],
)
def test_malformed_products_are_left_out(bad: Any) -> None:
    assert prints(catalogue(bad, GOOD)) == [A]


def test_hostile_texts() -> None:
    """Nothing that could change a terminal or a URL."""
    one = product(
        {"20240101": [item("lxd_combined.tar.gz", path="a?b#c d/../%2f", sha256=A, size=-1)]},
        aliases="\x1b[2J", os="x" * 5000, lxd_requirements={"a\x07": "b"}, support_eol="never",
    )  # fmt: skip
    ((image, files),) = catalogue(one)
    assert image["aliases"] == []
    assert "os" not in image["properties"]
    assert files == [("a%3Fb%23c%20d/../%2f", "metadata", 0)]
    assert image["size"] == 0
    assert image["expires_at"].startswith("0001-")


def test_index() -> None:
    index = {
        "index": {
            "a": {"datatype": "image-ids", "path": "a.json"},
            "b": {"datatype": "image-downloads", "path": "b.json"},
            "c": {"datatype": "image-downloads", "path": 5},
            "d": None,
        }
    }
    assert streams.product_paths(json.dumps(index).encode(), URL) == ["b.json"]


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"5", b'{"index": []}', b'{"index": {}}', b"[" * 10**5, b"\xff"])
def test_no_index(text: bytes) -> None:
    with pytest.raises(Internal, match="example") as error:
        streams.product_paths(text, URL)
    assert len(str(error.value).splitlines()) == 1
