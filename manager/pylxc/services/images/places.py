"""Where images come from and go to, for those who decide who may have them come and go."""

from __future__ import annotations

from urllib.parse import urlsplit

from pylxc.drivers.image import reach


def is_near(url: str) -> bool:
    """Tell whether a URL names an address of this host alone, or is none that can be understood."""
    try:
        return reach.is_near(urlsplit(url).hostname or "")
    except ValueError:
        return True
