"""The short forms of ports."""

from __future__ import annotations

import pytest

from pylxc.cli.port import Port, devices
from pylxc.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "name", "listen", "connect"),
    [
        ("8080:80", "port-8080", "tcp:[::]:8080", "tcp:127.0.0.1:80"),
        ("127.0.0.1:8080:80", "port-127.0.0.1-8080", "tcp:127.0.0.1:8080", "tcp:127.0.0.1:80"),
        ("[::1]:8080:80/tcp", "port-::1-8080", "tcp:[::1]:8080", "tcp:127.0.0.1:80"),
        ("5353:53/udp", "port-5353-udp", "udp:[::]:5353", "udp:127.0.0.1:53"),
        ("8000-8010:9000-9010", "port-8000-8010", "tcp:[::]:8000-8010", "tcp:127.0.0.1:9000-9010"),
    ],
)
def test_a_port_is_a_proxy_device_of_a_name_that_can_be_told(text: str, name: str, listen: str, connect: str) -> None:
    assert devices([text]) == {name: {"type": "proxy", "listen": listen, "connect": connect}}


def test_a_port_of_the_host_alone_names_the_device() -> None:
    assert (Port("8080").name, Port("8080").device) == ("port-8080", None)
    assert Port("127.0.0.1:8080").name == "port-127.0.0.1-8080"
    assert Port("5353/udp").name == Port("5353:53/udp").name


@pytest.mark.parametrize("text", ["", "80:", ":80", "http:80", "80:80/sctp", "80-:80", "1:2:3:4"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        devices([text])
