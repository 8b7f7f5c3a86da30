"""Profiles that ship with pylxc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pylxc.db import models, profiles
from pylxc.db.engine import Database
from pylxc.db.migrate import open_database
from pylxc.services import builtin_profiles
from pylxc.services.instances import checks
from pylxc.wire.server import PreseedProfile


def test_default_profile_is_filled_in() -> None:
    devices = builtin_profiles.devices("default", {"pool": "p", "network": "n"})
    assert devices["root"] == {"type": "disk", "path": "/", "pool": "p"}
    assert devices["eth0"] == {"type": "nic", "name": "eth0", "network": "n"}


def test_device_without_its_network_is_left_out() -> None:
    assert list(builtin_profiles.devices("default", {"pool": "p"})) == ["root"]


def test_the_others_are_whole() -> None:
    ready = builtin_profiles.ready()
    assert [profile["name"] for profile in ready] == ["isolated", "lan", "nesting", "small"]
    for profile in ready:
        checks.config(profile["config"], in_profile=True)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = open_database(str(tmp_path / "database" / "pylxc.db"))
    yield made
    made.close()


def version(number: int, *names: str) -> list[PreseedProfile]:
    """Return the profiles of a version of pylxc."""
    return [{"name": name, "config": {"user.version": str(number)}, "devices": {}} for name in names]


def versions(db: Database) -> dict[str, str]:
    with db.reading() as session:
        found = {row.name: row.config.get("user.version", "") for row in profiles.of_project(session, "default")}
    del found["default"]
    return found


def test_a_new_version_brings_its_profiles_and_overwrites_nothing(db: Database) -> None:
    with db.transaction() as session:
        default = profiles.get(session, "default", "default").project
        session.add(models.Profile(project=default, name="theirs", config={"user.version": "own"}))
    builtin_profiles.seed(db, version(1, "changed", "deleted", "same", "theirs", "used"))
    expected = {"changed": "1", "deleted": "1", "same": "1", "theirs": "own", "used": "1"}
    assert versions(db) == expected
    with db.transaction() as session:
        profiles.get(session, "default", "changed").description = "mine"
        session.delete(profiles.get(session, "default", "deleted"))
        instance = models.Instance(project_id=default.id, name="c1", architecture="x86_64", state="created")
        session.add(instance)
        session.flush()
        used = profiles.get(session, "default", "used").id
        session.add(models.InstanceProfile(instance_id=instance.id, profile_id=used, position=0))
    for number in (1, 2):
        builtin_profiles.seed(db, version(number, "changed", "deleted", "same", "theirs", "used"))
    builtin_profiles.seed(db, version(3, "new"))
    del expected["deleted"]
    assert versions(db) == {**expected, "same": "2", "new": "3"}
