"""What tests of networks and of volumes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, unique
from tests.support.namespace import NetworkNamespace
from tests.support.networks import NetworkHost, output
from tests.support.volumes import POOLS
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


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def guests(pools_daemon: Daemon) -> tuple[str, str, str]:
    """Return three running guests, whose id maps differ: of the default one, of one of its own, of none."""
    names = unique("c"), unique("i"), unique("p")
    configs = "user.x=1", "security.idmap.isolated=true", "security.privileged=true"
    for name, config in zip(names, configs, strict=True):
        pools_daemon.command("launch", "busybox", name, "-c", config)
    return names


@pytest.fixture
def volume(pools_daemon: Daemon, pool: str) -> str:
    """Return an empty volume in `pool`."""
    name = unique("v")
    pools_daemon.command("storage", "volume", "create", pool, name)
    return name
