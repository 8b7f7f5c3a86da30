from __future__ import annotations

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
    ],
)
def test_selects(text: str, names: list[str]) -> None:
    assert [item["name"] for item in filters.select(ITEMS, text)] == names


@pytest.mark.parametrize(
    "text", ["name", "name eq", "name is x", "name eq a and", "name eq a name eq b", "name eq (", "name eq 'a"]
)
def test_refuses_malformed_filters(text: str) -> None:
    with pytest.raises(BadRequest, match="Invalid filter"):
        filters.select(ITEMS, text)
