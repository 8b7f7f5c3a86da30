"""Images of simplestreams servers, such as cloud-images.ubuntu.com.

What a server's documents say is kept on disk as the list that GET answers, so that showing thousands of images again
costs a file's reading, and so that what is known can be used while the server cannot be reached.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from pylxc import __version__
from pylxc.drivers.image import streams
from pylxc.drivers.image.base import Area, Cancelled, Host, Offer, Progress, refuse_foreign
from pylxc.drivers.image.documents import Documents, Kept
from pylxc.drivers.image.download import file_pieces
from pylxc.drivers.image.signature import KeyRing
from pylxc.drivers.image.web import Broken, Web, check_url
from pylxc.errors import BadRequest, NotFound
from pylxc.kernel.architecture import architecture_name, host_architectures
from pylxc.meter import Meter
from pylxc.wire import images as wire

log = logging.getLogger(__name__)

LISTING_SECONDS = 60
"""How old a list may be that is only shown."""
_CATALOGUE = "catalogue"
_LOCK_SECONDS = 0.2
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """What a server has: JSON of `list[wire.Image]`, and of the files of each by fingerprint.

    `trouble` is why it could not be asked whether it still has that.
    """

    images: bytes
    files: bytes
    trouble: Broken | None = None


class SimplestreamsDriver:
    """Fetches images from simplestreams servers. See `ImageDriver`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._locks: dict[str, threading.Lock] = {}

    def find(self, source: Mapping[str, str], check_cancelled: Cancelled, *, fresh: bool) -> Offer:
        """Return what the server has for an alias or the beginning of a fingerprint, in either; see `ImageDriver`."""
        place = self._place(source)
        wanted = source.get("alias") or source.get("fingerprint") or ""
        if not wanted:
            raise BadRequest("An image is asked for by its alias or fingerprint")
        found = place.catalogue(check_cancelled, max_age=0, fresh=fresh)
        images: list[wire.Image] = json.loads(found.images)
        image = _by_alias(images, wanted)  # `lxc image copy` sends names as fingerprints
        alias = wanted if image else ""
        image = image or _by_fingerprint(images, wanted)
        if image is None:
            raise found.trouble or NotFound(f"{place.name} has no image {wanted[:100]!r}")
        refuse_foreign(image, wanted)
        kept = {"protocol": "simplestreams", "server": place.server, "certificate": place.certificate, "alias": alias}
        files = json.loads(found.files)[image["fingerprint"]]
        source = {key: value for key, value in kept.items() if value}
        return Offer(source=source, version=image["fingerprint"], image=image, described=True, hidden=files)

    def listing(self, source: Mapping[str, str]) -> bytes:
        """Return all the server's container images of all architectures; see `ImageDriver`."""
        return self._place(source).catalogue(lambda: None, max_age=LISTING_SECONDS, fresh=False).images

    def fetch(self, offer: Offer, area: Area, progress: Progress, check_cancelled: Cancelled) -> None:
        """Download the image's files; see `ImageDriver`."""
        server = offer.source["server"]
        with Web(self._host.setting, check_cancelled, offer.source.get("certificate", "")) as web:
            for path, part, size in offer.hidden:
                area.begin(part)
                meter = Meter(progress, part, size)
                for chunk in file_pieces(web, f"{server}/{path}", size):
                    area.write(chunk)
                    meter.add(len(chunk))

    def _place(self, source: Mapping[str, str]) -> _Place:
        server, certificate = (source.get("server") or "").rstrip("/"), source.get("certificate") or ""
        check_url(server)
        return _Place(self._host, server, certificate, self._locks)


class _Place:
    """One server, trusted in one way, and what is kept of it: with another certificate or key ring all is got anew.

    Args:
        host: says where to keep it.
        server: its URL.
        certificate: the one that it must have, "" for any that the system trusts.
        locks: of all places; one asks a server at a time.
    """

    def __init__(self, host: Host, server: str, certificate: str, locks: dict[str, threading.Lock]) -> None:
        self.server = server
        self.certificate = certificate
        self.name = urlsplit(server).netloc.rpartition("@")[2]
        self._setting = host.setting
        self._keyring = KeyRing(path) if (path := host.setting(f"images.keyring.{self.name}")) else None
        trust = self._keyring.digest if self._keyring else ""
        key = hashlib.sha256(f"{server}\n{certificate}\n{trust}".encode()).hexdigest()[:32]
        self._documents = Documents(f"{host.cache}/{key}")
        self._lock = locks.setdefault(key, threading.Lock())

    def catalogue(self, check_cancelled: Cancelled, *, max_age: float, fresh: bool) -> _Catalogue:
        """Return what the server has.

        Args:
            check_cancelled: see `Web`.
            max_age: seconds within which the server need not be asked again.
            fresh: fail when it cannot be reached, instead of returning what is known of it.
        """
        while not self._lock.acquire(timeout=_LOCK_SECONDS):
            check_cancelled()
        try:
            kept = self._read()
            if kept and self._documents.age(_CATALOGUE, time.time()) <= max_age:
                return kept[1]
            try:
                with Web(self._setting, check_cancelled, self.certificate) as web:
                    documents = self._ask(web)
            except Broken as error:
                if fresh or kept is None:
                    raise
                log.warning("Using what is known of the images of %s: %s", self.name, error)
                if max_age:
                    self._documents.touch(_CATALOGUE)  # who looks again need not wait for the network again
                return replace(kept[1], trouble=error)
            identity = [__version__, host_architectures()[0], *(document.identity for _, document in documents)]
            if kept and kept[0] == identity:
                self._documents.touch(_CATALOGUE)
                return kept[1]
            return self._write(identity, documents)
        finally:
            self._lock.release()

    def _ask(self, web: Web) -> list[tuple[str, Kept]]:
        """Return the server's lists of products by their URLs."""
        suffix = ".sjson" if self._keyring else ".json"

        def get(path: str, field: str) -> tuple[str, Kept]:
            url = f"{self.server}/{path.removesuffix('.json').removesuffix('.sjson')}{suffix}"
            return url, self._documents.get(web, url, partial(self._checked, url=url, field=field))

        url, index = get("streams/v1/index.json", "index")
        return [get(path, "products") for path in streams.product_paths(index.content, url)]

    def _checked(self, content: bytes, url: str, field: str) -> bytes:
        """Return what is to be kept of a document that has come."""
        if self._keyring:
            content = self._keyring.verify(content, url)
        streams.document(content, url, field)
        return content

    def _read(self) -> tuple[list[str], _Catalogue] | None:
        head, _, rest = (self._documents.read(_CATALOGUE) or b"").partition(b"\n")
        try:
            known = json.loads(head)
            whole = known["sha256"] == hashlib.sha256(rest).hexdigest()
        except (ValueError, KeyError, TypeError):
            return None
        images, _, files = rest.partition(b"\n")
        return (known["of"], _Catalogue(images, files)) if whole else None

    def _write(self, identity: list[str], documents: list[tuple[str, Kept]]) -> _Catalogue:
        entries = streams.catalogue(((url, document.content) for url, document in documents), self.server)
        made = _Catalogue(
            json.dumps([image for image, _ in entries]).encode(),
            json.dumps({image["fingerprint"]: files for image, files in entries}).encode(),
        )
        rest = made.images + b"\n" + made.files
        head = {"of": identity, "sha256": hashlib.sha256(rest).hexdigest()}
        self._documents.write(_CATALOGUE, json.dumps(head).encode() + b"\n" + rest)
        return made


def _by_alias(images: list[wire.Image], alias: str) -> wire.Image | None:
    """Return the image that an alias names: as it is, with an architecture of any spelling, or without its own."""
    found = next((image for image in images if _has(image, alias)), None)
    if found is None:
        base, _, last = alias.rpartition("/")
        if wanted := architecture_name(last) if base else None:
            found = next((i for i in images if i["architecture"] == wanted and _has_with_architecture(i, base)), None)
    if found is None:
        others = [image for image in images if _has_with_architecture(image, alias)]
        found = min(others, key=lambda image: image["architecture"] not in host_architectures(), default=None)
    return found


def _has(image: wire.Image, alias: str) -> bool:
    return any(one["name"] == alias for one in image["aliases"])


def _has_with_architecture(image: wire.Image, alias: str) -> bool:
    return _has(image, f"{alias}/{image['properties'].get('architecture', '')}")


def _by_fingerprint(images: list[wire.Image], prefix: str) -> wire.Image | None:
    prefix = prefix.lower()
    if not prefix or not _HEX.issuperset(prefix):
        return None
    found = {image["fingerprint"]: image for image in images if image["fingerprint"].startswith(prefix)}
    if len(found) > 1:
        raise BadRequest("Partial fingerprint matches more than one image", hint="give more of it")
    return next(iter(found.values()), None)
