"""The choice of a subnet."""

from __future__ import annotations

import ipaddress
import random

import pytest

from pylxc.drivers.network import subnet
from pylxc.errors import Unavailable


def test_free_subnet_is_private_and_overlaps_nothing() -> None:
    taken = ["10.0.0.0/9", "10.128.0.0/10", "192.0.2.1", "fe80::/64", "0.0.0.0/0", "no address"]
    for seed in range(50):
        chosen = ipaddress.IPv4Interface(subnet.free_ipv4(taken, random.Random(seed)))
        assert chosen.network.prefixlen == 24
        assert chosen.ip == chosen.network.network_address + 1
        assert subnet.overlapping(str(chosen), taken) is None
        assert ipaddress.IPv4Network("10.192.0.0/10").supernet_of(chosen.network)


def test_other_private_ranges_follow_when_the_first_is_full() -> None:
    assert subnet.free_ipv4(["10.0.0.0/8"]) == "172.16.0.1/24"
    assert subnet.free_ipv4(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/17"]) == "192.168.128.1/24"
    with pytest.raises(Unavailable, match="No private IPv4 subnet is free"):
        subnet.free_ipv4(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])


def test_overlap_is_named() -> None:
    assert subnet.overlapping("10.1.2.1/24", ["192.168.0.0/16", "10.1.0.0/16"]) == "10.1.0.0/16"
    assert subnet.overlapping("10.1.2.1/24", ["10.1.2.77"]) == "10.1.2.77/32"
    assert subnet.overlapping("10.1.2.1/24", ["10.1.3.0/24", "fd42::/16"]) is None


def test_unique_local_subnet() -> None:
    chosen = {subnet.free_ipv6() for _ in range(20)}
    assert len(chosen) == 20
    for text in chosen:
        assert ipaddress.IPv6Network("fd42::/16").supernet_of(ipaddress.IPv6Interface(text).network)


def test_addresses_of_ranges_that_are_relative_to_the_subnet() -> None:
    config = {"ipv6.address": "fd42::1/64", "ipv6.dhcp.stateful": "true", "ipv6.dhcp.ranges": "::10-::20"}
    assert subnet.free_address(config, "ipv6", ["fd42::10"]) == "fd42::11"
