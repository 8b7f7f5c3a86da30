"""The rules of redirected addresses as plain data."""

from __future__ import annotations

import pytest

from pylxc.drivers.redirect import Redirect, chains

WEB = Redirect(protocol="tcp", listen="192.0.2.1", ports=(80, 443), target="10.0.0.2")


def test_ports_keep_their_numbers_or_go_to_one_or_to_one_each() -> None:
    same, one, each = (
        chains(
            [Redirect(protocol="tcp", listen="192.0.2.1", ports=(80, 81), target="10.0.0.2", target_ports=ports)], ""
        )
        for ports in ((), (8080,), (9000, 9001))
    )
    assert same[0].rules[0][-1] == {"dnat": {"family": "ip", "addr": "10.0.0.2"}}
    assert same[0].rules[0][1]["match"]["right"] == {"set": [{"range": [80, 81]}]}
    assert one[0].rules[0][-1]["dnat"]["port"] == 8080
    assert each[0].rules[0][-1]["dnat"]["port"]["map"]["data"] == {"set": [[80, 9000], [81, 9001]]}


def test_neighbours_of_the_target_are_masqueraded() -> None:
    arriving, own, hairpin = chains([WEB], "10.0.0.1/24")
    assert arriving.rules == own.rules
    original, neighbour, action = hairpin.rules[0]
    assert original["match"]["left"] == {"ct": {"key": "ip daddr", "dir": "original"}}
    assert neighbour["match"]["right"] == {"prefix": {"addr": "10.0.0.0", "len": 24}}
    assert action == {"masquerade": None}
    assert chains([WEB], "")[2].rules == ()


def test_no_redirects_need_no_rules() -> None:
    assert chains([], "10.0.0.1/24") == []


@pytest.mark.parametrize(
    ("other", "both"),
    [
        (
            Redirect(protocol="tcp", listen="192.0.2.1", ports=(443, 444), target="10.0.0.3"),
            "tcp port 443 of 192.0.2.1",
        ),
        (Redirect(protocol="udp", listen="192.0.2.1", ports=(443,), target="10.0.0.3"), ""),
        (Redirect(protocol="tcp", listen="192.0.2.2", ports=(443,), target="10.0.0.3"), ""),
        (Redirect(protocol="", listen="192.0.2.1", target="10.0.0.3"), "address 192.0.2.1"),
    ],
)
def test_what_two_of_them_both_take(other: Redirect, both: str) -> None:
    assert WEB.overlap(other) == both
    assert other.overlap(WEB) == both
