"""Where image servers may be: a URL must not lead to what only this host reaches.

Services of this host that listen on the loopback, and the link-local services of clouds, trust whoever reaches them. So
the daemon goes there only when the URL that it was given names such an address itself, as it stands: no redirect and
no name leads there, now or when an image is updated later.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit

from pylxc.errors import Internal


def is_near(host: str) -> bool:
    """Tell whether a URL's host is, as it stands, an address that means another machine elsewhere, or none."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost") or is_near_address(name)


def follow(url: str, location: str) -> str:
    """Return the URL that a server at `url` sends its clients to.

    Raises:
        Internal: it is no URL, or of one of this host's own addresses, and `url` is not there itself.
    """
    place = urlsplit(url).netloc.rpartition("@")[2][:100]
    try:
        target = urljoin(url, location)
        host = urlsplit(target).hostname or ""
    except ValueError as error:
        raise Internal(f"{place} leads to what is no URL") from error
    if is_near(host) and host != urlsplit(url).hostname:
        raise Internal(f"{place} leads to {host[:100]}, which is this host's own")
    return target


def is_near_address(text: str) -> bool:
    """Tell whether a text is an address of the loopback, of the link, or of no single machine."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
