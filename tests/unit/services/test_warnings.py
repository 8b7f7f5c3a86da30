"""Warnings on a real database, by a clock of the test's own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylxc.db import models
from pylxc.db.engine import Database
from pylxc.db.migrate import open_database
from pylxc.errors import BadRequest, NotFound, PreconditionFailed
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.warnings import AUTOSTART, LIMIT, OUT_OF_MEMORY, Warnings

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Bench:
    def __init__(self, db: Database) -> None:
        self.db = db
        self.at = START
        self.events = EventBus()
        self.warnings = Warnings(db, self.events, lambda: self.at)

    def instance(self, name: str, project: str) -> int:
        with self.db.transaction() as session:
            row = models.Project(name=project)
            session.add(row)
            session.flush()
            made = models.Instance(project_id=row.id, name=name, architecture="x86_64", state="created")
            session.add(made)
            session.flush()
            return made.id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    db = open_database(str(tmp_path / "pylxc.db"))
    yield Bench(db)
    db.close()


def test_what_happens_again_is_counted(bench: Bench) -> None:
    instance = bench.instance("c1", "blue")
    bench.warnings.add(OUT_OF_MEMORY, "first", instance, count=2)
    bench.at += dt.timedelta(hours=1)
    bench.warnings.add(OUT_OF_MEMORY, "second", instance)
    bench.warnings.add(LIMIT, "of the server")
    about, server = bench.warnings.list(None)
    assert (about["count"], about["last_message"], about["status"]) == (3, "second", "new")
    assert (about["entity_url"], about["project"]) == ("/1.0/instances/c1?project=blue", "blue")
    assert (about["first_seen_at"], about["last_seen_at"]) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")
    assert (server["entity_url"], server["severity"]) == ("/1.0", "low")
    assert bench.warnings.list("blue") == [about]


def test_acknowledged_reset_and_deleted(bench: Bench) -> None:
    bench.warnings.add(AUTOSTART, "no")
    uuid = bench.warnings.list(None)[0]["uuid"]
    heard = bench.events.subscribe({"lifecycle"}, None)
    with pytest.raises(PreconditionFailed):
        bench.warnings.set_status(uuid, "acknowledged", etag.etag("resolved"))
    bench.warnings.set_status(uuid, "acknowledged", etag.etag("new"))
    bench.warnings.add(AUTOSTART, "no")
    assert bench.warnings.get(uuid)[0]["status"] == "acknowledged"
    bench.warnings.set_status(uuid, "new", None)
    with pytest.raises(BadRequest, match="acknowledged or new"):
        bench.warnings.set_status(uuid, "resolved", None)
    bench.warnings.delete(uuid)
    with pytest.raises(NotFound):
        bench.warnings.get(uuid)
    actions = [event["metadata"]["action"] for event in iter(lambda: heard.get(0), None)]
    assert actions == ["warning-acknowledged", "warning-reset", "warning-deleted"]


def test_resolved_ones_are_forgotten_after_a_day_or_come_back(bench: Bench) -> None:
    bench.warnings.resolve(LIMIT)
    bench.warnings.add(LIMIT, "no")
    bench.warnings.resolve(LIMIT)
    bench.at += dt.timedelta(hours=23)
    bench.warnings.expire()
    bench.warnings.add(LIMIT, "no")
    assert [each["status"] for each in bench.warnings.list(None)] == ["new"]
    bench.warnings.resolve(LIMIT)
    bench.at += dt.timedelta(hours=25)
    bench.warnings.expire()
    assert bench.warnings.list(None) == []


def test_they_go_with_their_instance(bench: Bench) -> None:
    instance = bench.instance("c1", "blue")
    bench.warnings.add(OUT_OF_MEMORY, "no", instance)
    with bench.db.transaction() as session:
        session.delete(session.get(models.Instance, instance))
    bench.warnings.add(OUT_OF_MEMORY, "too late", instance)
    assert bench.warnings.list(None) == []
