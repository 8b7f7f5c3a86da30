from __future__ import annotations

import pytest

from pylxc.drivers.device.endpoint import parse, parse_ports
from pylxc.errors import BadRequest
from pylxc.runtime.spec import Endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("tcp:0.0.0.0:80-82,443", Endpoint(kind="tcp", address="0.0.0.0", ports=(80, 81, 82, 443))),
        ("udp:[fd42:0::1]:53", Endpoint(kind="udp", address="fd42::1", ports=(53,))),
        ("tcp::80", Endpoint(kind="tcp", address="::", ports=(80,))),
        ("unix:/run/a:b.sock", Endpoint(kind="unix", address="/run/a:b.sock")),
        ("unix:@name", Endpoint(kind="unix", address="@name")),
    ],
)
def test_an_address_is_read_as_the_dialect_writes_it(text: str, endpoint: Endpoint) -> None:
    assert parse(text) == endpoint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("80", "Unknown connection type '80'"),
        ("tcp:80", "a port is missing"),
        ("tcp:localhost:80", "Invalid IP address 'localhost'"),
        ("tcp:fe80::1:80", "stands in brackets"),
        ("tcp:[fe80::1%eth0]:80", "must not name an interface"),
        ("tcp:0.0.0.0:", "Invalid port ''"),
        ("tcp:0.0.0.0:0", "Invalid port '0'"),
        ("tcp:0.0.0.0:65536", "Invalid port '65536'"),
        ("tcp:0.0.0.0:90-80", "runs backwards"),
        ("tcp:0.0.0.0:80,79-81", "named twice"),
        ("unix:relative", "an absolute path"),
        ("unix:/" + "x" * 107, "more than 107 bytes"),
    ],
)
def test_a_malformed_address_is_refused_with_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse(text)
    assert complaint in str(error.value)


def test_ranges_are_unfolded() -> None:
    assert parse_ports("8000-8002, 9000") == (8000, 8001, 8002, 9000)
