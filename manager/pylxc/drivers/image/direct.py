"""An image at a URL, from a web server that tells its fingerprint and place: source type `url`.

See: LXD doc image-handling, "Image import from a URL"
"""

from __future__ import annotations

from collections.abc import Mapping

from pylxc.drivers.image.base import Area, Cancelled, Host, Offer, Progress, is_fingerprint, wire_image
from pylxc.drivers.image.download import file_pieces
from pylxc.drivers.image.reach import follow
from pylxc.drivers.image.web import Web
from pylxc.errors import BadRequest, NotSupported
from pylxc.kernel.architecture import host_architectures
from pylxc.meter import Meter
from pylxc.wire.server import DIALECT


class DirectDriver:
    """Fetches unified images from URLs. See `ImageDriver`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def find(self, source: Mapping[str, str], check_cancelled: Cancelled, *, fresh: bool) -> Offer:
        """Ask the URL `source["server"]` what it leads to; see `ImageDriver`."""
        url = source.get("server") or ""
        headers = {"LXD-Server-Architectures": ", ".join(host_architectures()), "LXD-Server-Version": DIALECT}
        with Web(self._host.setting, check_cancelled) as web, web.open("HEAD", url, headers) as response:
            fingerprint = response.headers.get("LXD-Image-Hash", "").lower()
            target = response.headers.get("LXD-Image-URL", "")
        if not is_fingerprint(fingerprint) or not target:
            raise BadRequest(f"{url} leads to no image: it has no LXD-Image-Hash or no LXD-Image-URL header")
        return Offer(
            source={"protocol": "direct", "server": url},
            version=fingerprint,
            image=wire_image(fingerprint=fingerprint),
            hidden=follow(url, target),
        )

    def listing(self, source: Mapping[str, str]) -> bytes:
        """Refuse: a URL is one image."""
        raise NotSupported("A URL has no list of images")

    def fetch(self, offer: Offer, area: Area, progress: Progress, check_cancelled: Cancelled) -> None:
        """Download the image; see `ImageDriver`."""
        area.begin("metadata")
        meter = Meter(progress, "rootfs", 0)
        with Web(self._host.setting, check_cancelled) as web:
            for chunk in file_pieces(web, offer.hidden):
                area.write(chunk)
                meter.add(len(chunk))
