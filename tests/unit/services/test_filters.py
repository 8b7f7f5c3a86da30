from __future__ import annotations

import time
from typing import Any

import pytest

from pylxc.errors import BadRequest
from pylxc.services import filters

ITEMS: list[dict[str, Any]] = [
    {"name": "web1", "status": "Running", "ephemeral": False, "config": {"user.stage": "dev", "limits.cpu": "2"}},
    {"name": "web2", "status": "Stopped", "ephemeral": True, "config": {"user.stage": "prod"}},
    {"name": "db", "status": "Running", "ephemeral": False, "config": {}, "devices": {"eth0": {"network": "br0"}}},
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["web1", "web2", "db"]),
        ("name eq web1", ["web1"]),
        ("name eq web", []),
        ("name eq ^web", ["web1", "web2"]),
        ("name eq WEB.*", ["web1", "web2"]),
        ("name ne db", ["web1", "web2"]),
        ("not name eq db", ["web1", "web2"]),
        ("status eq running and name eq db", ["db"]),
        ("name eq db or name eq web2", ["web2", "db"]),
        ("name eq db or name eq web1 and status eq stopped", []),
        ("config.user.stage eq dev", ["web1"]),
        ("config.limits.cpu eq 2", ["web1"]),
        ("devices.eth0.network eq br0", ["db"]),
        ("ephemeral eq true", ["web2"]),
        ("nonsense eq x", []),
        ('name eq "web1"', ["web1"]),
        ("name eq web1|db", ["web1", "db"]),
        ("config.user.stage ne dev", ["web2", "db"]),
        ("not config.user.stage eq dev", ["web2", "db"]),
        ("not config.user.stage ne dev", ["web1"]),
        ("NAME eq web1", []),
        ("name  EQ  web1", ["web1"]),
        ("name eq not", []),
        (r"name eq web\d", ["web1", "web2"]),
        ('config.user.stage eq "de v"', []),
        ("name eq 'db'", []),
    ],
)
def test_selects(text: str, names: list[str]) -> None:
    assert [item["name"] for item in filters.select(ITEMS, text)] == names


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "name eq",
        "name is x",
        "name eq a and",
        "name eq a name eq b",
        "name eq (",
        'name eq "a b',
        "not not a eq b",
    ],
)
def test_refuses_malformed_filters(text: str) -> None:
    with pytest.raises(BadRequest, match="Invalid filter"):
        filters.select(ITEMS, text)


def test_an_expression_that_means_ill_takes_no_time() -> None:
    begin = time.monotonic()
    assert filters.select([{"name": "a" * 60 + "b"}], "name eq (a+)+c") == []
    assert filters.select([{"name": "a" * 5000}], f"name eq {'(a*)*' * 50}b") == []
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("text", ["name eq a{1000}{1000}{1000}", "name eq (a)\\1"])
def test_expressions_that_are_too_much(text: str) -> None:
    with pytest.raises(BadRequest, match="Invalid filter"):
        filters.select(ITEMS, text)
