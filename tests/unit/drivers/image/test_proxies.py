"""Which proxy a URL is fetched through."""

from __future__ import annotations

import pytest

from pylxc.drivers.image.proxies import environment, proxy_for

URL = "https://images.example.org/x"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def choose(url: str = URL, **keys: str) -> str:
    return proxy_for(url, lambda key: keys.get(key.removeprefix("core.proxy_"), ""))


def test_keys_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose() == ""
    monkeypatch.setenv("https_proxy", "http://env:3128")
    assert choose() == "http://env:3128"
    assert choose(https="key:3128", http="http://other:1") == "http://key:3128"
    assert choose("http://a/", http="http://other:1") == "http://other:1"


def test_hosts_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "example.org")
    assert choose(https="http://p") == ""
    assert choose(https="http://p", ignore_hosts="other.org") == "http://p"  # the key stands for the variable
    for ignored in ("images.example.org", ".example.org", "a, example.org", "*"):
        assert choose(https="http://p", ignore_hosts=ignored) == "", ignored
    assert choose("https://images.example.org:8443/", https="http://p", ignore_hosts="example.org:443") == "http://p"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_never_for_this_host(host: str) -> None:
    assert choose(f"https://{host}:8443/", https="http://p") == ""


def test_for_programs() -> None:
    keys = {"core.proxy_http": "http://p", "core.proxy_ignore_hosts": "a,b"}
    assert environment(lambda key: keys.get(key, "")) == {"http_proxy": "http://p", "no_proxy": "a,b"}
