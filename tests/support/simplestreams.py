"""A tree of images as cloud-images.ubuntu.com lays its own out, on a web server that can be told to misbehave."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import yaml

from tests.support.namespace import NetworkNamespace
from tests.support.tls import Authority
from tests.support.webserver import WebServer

CONTENT_ID = "com.ubuntu.cloud:released:download"
PRODUCTS = f"streams/v1/{CONTENT_ID}.json"
INDEX = "streams/v1/index.json"

JAMMY = {
    "aliases": "22.04,j,jammy",
    "arch": "amd64",
    "os": "ubuntu",
    "release": "jammy",
    "release_codename": "Jammy Jellyfish",
    "release_title": "22.04 LTS",
    "support_eol": "2032-04-21",
    "supported": True,
    "version": "22.04",
}
"""The fields of the product com.ubuntu.cloud:server:22.04:amd64."""


class Simplestreams(WebServer):
    """A simplestreams server; `publish` writes the index of what was added.

    Args:
        directory: for its files; the tree is `directory/tree`.
        authority: whose key pair it uses.
        netns: the network namespace to listen in: the daemon's.
        address: what it listens on.
    """

    def __init__(
        self,
        directory: Path,
        authority: Authority,
        netns: NetworkNamespace | None,
        address: str = "127.0.0.1",
    ) -> None:
        (directory / "tree" / "streams" / "v1").mkdir(parents=True)
        super().__init__(directory / "tree", authority, netns, address)
        self.products: dict[str, dict[str, Any]] = {}

    def add(
        self,
        serial: str,
        files: list[str | bytes],
        *,
        product: str = "com.ubuntu.cloud:server:22.04:amd64",
        metadata: str = "lxd.tar.xz",
        rootfs: str = "squashfs",
        label: str = "release",
        **fields: Any,
    ) -> str:
        """Add a version of a product and return its image's fingerprint; published by `publish`.

        Args:
            serial: the version's name, a date: "20240101".
            files: the metadata's and the rootfs' file or content; one for a combined image.
            product: its key; `fields` differ from `JAMMY`.
            metadata: the kind of the first file: lxd.tar.xz, incus.tar.xz; lxd_combined.tar.gz when it is alone.
            rootfs: the kind of the second: squashfs, root.tar.xz.
            label: the version's.
        """
        described = self.products.setdefault(product, {**JAMMY, **fields, "versions": {}})
        release, arch = described["release"], described["arch"]
        stem = f"server/releases/{release}/release-{serial}/{described['os']}-{described['version']}"
        stem += f"-server-cloudimg-{arch}"
        contents = [file if isinstance(file, bytes) else Path(file).read_bytes() for file in files]
        kinds = [metadata, rootfs] if len(files) == 2 else ["lxd_combined.tar.gz"]
        items = described["versions"].setdefault(
            serial, {"items": {}, "label": label, "pubname": f"ubuntu-{release}-{described['version']}-{serial}"}
        )["items"]
        for kind, content in zip(kinds, contents, strict=True):
            path = f"{stem}.squashfs" if kind == "squashfs" else f"{stem}-{kind}"
            self.write(path, content)
            items.setdefault(kind, {}).update(
                ftype=kind, path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content),
                md5=hashlib.md5(content).hexdigest(),
            )  # fmt: skip
        fingerprint = hashlib.sha256(b"".join(contents)).hexdigest()
        if len(files) == 2:
            combined = {"squashfs": "squashfs", "root.tar.xz": "rootxz"}[rootfs]
            items[metadata][f"combined_{combined}_sha256"] = fingerprint
            if rootfs == "root.tar.xz":
                items[metadata]["combined_sha256"] = fingerprint
        return fingerprint

    def write(self, path: str, content: bytes) -> None:
        """Put a file into the tree, whole or not at all."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.new")
        draft.write_bytes(content)
        os.rename(draft, target)

    def publish(self, *, sign_by: str = "") -> None:
        """Write index and products; with `sign_by`, the home directory of a gpg key, the signed forms as well."""
        for suffix in ("json", "sjson") if sign_by else ("json",):
            products = {
                "content_id": CONTENT_ID,
                "datatype": "image-downloads",
                "format": "products:1.0",
                "products": copy.deepcopy(self.products),
                "updated": "Mon, 01 Jan 2024 12:00:00 +0000",
            }
            path = f"streams/v1/{CONTENT_ID}.{suffix}"
            index = {
                "format": "index:1.0",
                "index": {
                    "com.ubuntu.cloud:released:aws": {
                        "clouds": [{"endpoint": "https://ec2.us-east-1.amazonaws.com", "region": "us-east-1"}],
                        "datatype": "image-ids",
                        "format": "products:1.0",
                        "path": f"streams/v1/com.ubuntu.cloud:released:aws.{suffix}",
                        "products": [],
                        "updated": "Mon, 01 Jan 2024 12:00:00 +0000",
                    },
                    CONTENT_ID: {
                        "datatype": "image-downloads",
                        "format": "products:1.0",
                        "path": path,
                        "products": sorted(self.products),
                        "updated": "Mon, 01 Jan 2024 12:00:00 +0000",
                    },
                },
                "updated": "Mon, 01 Jan 2024 12:00:00 +0000",
            }
            for name, data in ((path, products), (f"streams/v1/index.{suffix}", index)):
                text = json.dumps(data, indent=1).encode()
                self.write(name, clearsign(text, sign_by) if suffix == "sjson" else text)


def clearsign(text: bytes, home: str) -> bytes:
    """Return `text` signed by the key in the gpg home directory `home`."""
    command = ["gpg", "--homedir", home, "--batch", "--quiet", "--clearsign", "--output", "-"]
    return subprocess.run(command, input=text, check=True, capture_output=True).stdout


def another_version(files: list[str], serial: str) -> list[str | bytes]:
    """Return the files of a split image with another serial in its metadata: another image by its fingerprint."""
    metadata, rootfs = files
    draft = io.BytesIO()
    with tarfile.open(metadata) as old, tarfile.open(fileobj=draft, mode="w:xz") as new:
        for member in old:
            content = old.extractfile(member)
            data = content.read() if content else b""
            if member.name.removeprefix("./") == "metadata.yaml":
                described = yaml.safe_load(data)
                described["properties"]["serial"] = serial
                data = yaml.safe_dump(described).encode()
                member.size = len(data)
            new.addfile(member, io.BytesIO(data) if content else None)
    return [draft.getvalue(), rootfs]
