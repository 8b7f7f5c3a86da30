from __future__ import annotations

import pytest

from pylxc.api.call import Endpoint
from pylxc.api.router import Router
from pylxc.errors import BadRequest, NotFound

ALIASES = Endpoint(path="/1.0/images/aliases")
ALIAS = Endpoint(path="/1.0/images/aliases/{name:*}")
IMAGE = Endpoint(path="/1.0/images/{fingerprint}")
EXPORT = Endpoint(path="/1.0/images/{fingerprint}/export")
INSTANCES = Endpoint(path="/1.0/instances")
INSTANCE = Endpoint(path="/1.0/instances/{name}")
ROUTER = Router((ALIASES, ALIAS, IMAGE, EXPORT, INSTANCES, INSTANCE))


@pytest.mark.parametrize(
    ("path", "endpoint", "params", "legacy"),
    [
        ("/1.0/images/abc", IMAGE, {"fingerprint": "abc"}, ""),
        ("/1.0/images/abc/export", EXPORT, {"fingerprint": "abc"}, ""),
        ("/1.0/images/aliases", ALIASES, {}, ""),
        ("/1.0/images/aliases/ubuntu%2F22.04", ALIAS, {"name": "ubuntu/22.04"}, ""),
        ("/1.0/images/aliases/ubuntu/22.04", ALIAS, {"name": "ubuntu/22.04"}, ""),
        ("/1.0/images/a%2Fb", IMAGE, {"fingerprint": "a/b"}, ""),
        ("/1.0/instances/c%20%C3%A9", INSTANCE, {"name": "c é"}, ""),
        ("/1.0/containers/c1", INSTANCE, {"name": "c1"}, "containers"),
        ("/1.0/virtual-machines", INSTANCES, {}, "virtual-machines"),
    ],
)
def test_found(path: str, endpoint: Endpoint, params: dict[str, str], legacy: str) -> None:
    match = ROUTER.find(path)
    assert (match.endpoint, match.params, match.legacy) == (endpoint, params, legacy)


@pytest.mark.parametrize("path", ["", "/", "/1.0", "/1.0/instances/", "/1.0/instances/a/b", "/1.0//instances", "*"])
def test_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        ROUTER.find(path)


@pytest.mark.parametrize("path", ["/1.0/instances/%ff", "/1.0/instances/a%00"])
def test_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        ROUTER.find(path)


def test_a_path_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="twice"):
        Router((INSTANCE, INSTANCE))
