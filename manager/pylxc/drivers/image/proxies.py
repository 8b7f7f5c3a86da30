"""Which proxy a download goes through: the server's `core.proxy_*` keys, else the daemon's environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

Setting = Callable[[str], str]
"""Returns the value of a server configuration key."""


def proxy_for(url: str, setting: Setting) -> str:
    """Return the proxy's URL for `url`, "" for none. This host itself is never asked through a proxy."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host):
        return ""
    inherited = getproxies_environment()
    ignored = setting("core.proxy_ignore_hosts") or inherited.get("no", "")
    address = f"{host}:{parts.port}" if parts.port else host
    if proxy_bypass(address, {"no": ignored}):
        return ""
    proxy = setting(f"core.proxy_{parts.scheme}") or inherited.get(parts.scheme, "")
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def environment(setting: Setting) -> dict[str, str]:
    """Return what the server's keys add to the environment of a program that downloads."""
    keys = {"http_proxy": "core.proxy_http", "https_proxy": "core.proxy_https", "no_proxy": "core.proxy_ignore_hosts"}
    return {name: value for name, key in keys.items() if (value := setting(key))}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
