"""What tests of networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import unique
from tests.support.namespace import NetworkNamespace
from tests.support.networks import NetworkHost, output
from tests.support.wait import until


@pytest.fixture
def inside() -> Iterator[NetworkNamespace]:
    """Move this thread into a new network namespace for the time of a test."""
    namespace = NetworkNamespace(unique("pt")[:12])
    with namespace.entered():
        yield namespace
    namespace.close()


@pytest.fixture
def host(inside: NetworkNamespace, tmp_path: Path, need: Callable[..., None]) -> Iterator[NetworkHost]:
    del inside
    need("dnsmasq", "nft", "busybox")
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)  # dnsmasq's user passes through
    host = NetworkHost(tmp_path)
    yield host
    for guest in host.guests:
        guest.close()
    for network in host.networks.list():
        if network["managed"]:
            host.networks.delete(network["name"])
    host.networks.close()
    host.db.close()
    assert until(lambda: not host.dnsmasqs(), "dnsmasq ends")
    assert "pylxc" not in output("nft", "list", "ruleset")
