from __future__ import annotations

import pytest

from pylxc.errors import BadRequest
from pylxc.services.backups import document
from pylxc.services.instances import backup_index

DESCRIBED = b"""
container:
  {name: c1, project: work, profiles: [default], devices: {d: {type: none}}, expanded_devices: {e: {type: none}}}
snapshots: [{name: c1/s0, config: {user.x: "1"}}, {name: s1}]
pool: {name: p1, driver: dir, config: {size: 1GiB}}
profiles: [{name: default, devices: {e: {type: none}}}]
"""


def test_reads_what_a_volume_says() -> None:
    index = backup_index.parse_described(DESCRIBED)
    assert (index.name, index.project, index.pool) == ("c1", "work", "p1")
    assert [snapshot["name"] for snapshot in index.snapshots] == ["s0", "s1"]
    assert index.config["devices"] == {"d": {"type": "none"}}
    assert index.expanded_devices == {"e": {"type": "none"}}
    assert index.pool_config == {"name": "p1", "driver": "dir", "config": {"size": "1GiB"}}
    assert index.profiles[0]["name"] == "default"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: &a [x]\ncontainer: {name: *a}", "refers to itself"),
        ("container: {name: c1, config: {no: x}}", "the key False is no text"),
        ("container: {name: c1, config: {user.x: [1]}}", "config.user.x"),
        ("container: {name: c1, type: virtual-machine}", "of a virtual-machine"),
        ("container: {name: c1}\nsnapshots: [{name: ..}]", "Invalid snapshot name"),
        ("{}", "lacks something"),
        ("[" * 100_000, "no YAML"),
    ],
)
def test_refuses_what_no_server_writes(text: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        backup_index.parse_described(text.encode())


def test_writes_no_references() -> None:
    shared = {"type": "none"}
    assert "&" not in document.dump({"a": shared, "b": shared})
