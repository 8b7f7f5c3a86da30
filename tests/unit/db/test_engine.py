"""The database under many who use it at once."""

from __future__ import annotations

import threading
from pathlib import Path

from pylxc.db import migrate, projects
from pylxc.db.models import Project
from tests.support.wait import until


def test_who_writes_can_read_beside_it_whoever_waits(tmp_path: Path) -> None:
    database = migrate.open_database(str(tmp_path / "a.db"))
    failed = []

    def write() -> None:
        try:
            with database.transaction() as session:
                session.add(Project(name=threading.current_thread().name))
        except Exception as error:  # noqa: BLE001 - told of below
            failed.append(error)

    others = [threading.Thread(target=write) for _ in range(16)]
    with database.transaction():
        for other in others:
            other.start()
        until(lambda: database.engine.pool.checkedout() >= 15, "others wait")  # type: ignore[attr-defined]
        with database.reading() as session:
            assert [project.name for project in projects.everything(session)] == ["default"]
    for other in others:
        other.join()
    with database.reading() as session:
        assert (failed, len(projects.everything(session))) == ([], 17)
    database.close()
