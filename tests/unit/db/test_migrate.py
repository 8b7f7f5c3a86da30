from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from pylxc.db import copies, migrate, profiles, projects
from pylxc.errors import DatabaseUnusable, Unavailable


def test_makes_an_empty_database_with_the_default_project_and_profile(tmp_path: Path) -> None:
    path = tmp_path / "database" / "pylxc.db"
    database = migrate.open_database(str(path))
    with database.reading() as session:
        assert [project.name for project in projects.everything(session)] == ["default"]
        assert profiles.get(session, "default", "default").config == {}
    database.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert migrate.stored_revision(str(path)) == migrate.HEAD


def test_head_is_the_newest_revision() -> None:
    assert max(migrate.known_revisions()) == migrate.HEAD


def test_does_not_import_alembic_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    path = str(tmp_path / "pylxc.db")
    migrate.open_database(path).close()
    code = (
        "import sys; from pylxc.db.migrate import open_database; "
        f"open_database({path!r}).close(); sys.exit('alembic' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_a_failed_migration_leaves_an_empty_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "pylxc.db")
    with monkeypatch.context() as patch:
        patch.setattr("alembic.operations.Operations.create_table", lambda *_a, **_k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            migrate.open_database(path)
    assert migrate.stored_revision(path) is None
    migrate.open_database(path).close()


def test_refuses_a_newer_database(tmp_path: Path) -> None:
    path = str(tmp_path / "pylxc.db")
    migrate.open_database(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(Unavailable, match="newer version"):
        migrate.open_database(path)


def test_backs_an_older_database_up_before_migrating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "pylxc.db")
    migrate.open_database(path).close()
    former = migrate.HEAD
    monkeypatch.setattr(migrate, "HEAD", "9999")
    monkeypatch.setattr(migrate, "upgrade", lambda _database: None)
    migrate.open_database(path).close()
    (kept,) = copies.listed(path)
    assert kept.endswith(f"-{former}.db")
    assert migrate.stored_revision(kept) == former


def test_refuses_to_begin_anew_beside_backups(tmp_path: Path) -> None:
    path = tmp_path / "pylxc.db"
    migrate.open_database(str(path)).close()
    kept = copies.keep(str(path), "daily")
    for gone in (path.unlink, lambda: path.write_bytes(b"")):
        gone()
        with pytest.raises(DatabaseUnusable, match=f"pylxc admin restore {kept}"):
            migrate.open_database(str(path))
    os.unlink(kept)
    migrate.open_database(str(path)).close()


def test_keeps_the_newest_copies_only(tmp_path: Path) -> None:
    path = str(tmp_path / "pylxc.db")
    migrate.open_database(path).close()
    for number in range(copies.KEPT + 3):
        copies.keep(path, f"{number:02}")
    names = sorted(os.path.basename(found).partition("-")[2] for found in copies.listed(path))
    assert names == [f"{number:02}.db" for number in range(3, copies.KEPT + 3)]
    assert os.stat(copies.directory(path)).st_mode & 0o777 == 0o700
    assert {os.stat(found).st_mode & 0o777 for found in copies.listed(path)} == {0o600}


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_replaced_database_is_kept_with_its_log(tmp_path: Path, is_damaged: bool) -> None:
    path, new = tmp_path / "pylxc.db", tmp_path / "new"
    migrate.open_database(str(path)).close()
    copies.copy(str(path), str(new))
    if is_damaged:
        path.write_bytes(b"damaged")
        Path(f"{path}-wal").write_bytes(b"log")
    former = copies.replace(str(path), str(new))
    assert migrate.stored_revision(str(path)) == migrate.HEAD
    if is_damaged:
        assert Path(former).read_bytes() == b"damaged"
        assert Path(f"{former}-wal").read_bytes() == b"log"
        assert not Path(f"{path}-wal").exists()
    else:
        assert migrate.stored_revision(former) == migrate.HEAD


@pytest.mark.parametrize("damage", ["garbage", "foreign", "truncated"])
def test_refuses_a_damaged_database(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "pylxc.db"
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 100)
    elif damage == "foreign":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE things (a)")
    else:
        migrate.open_database(str(path)).close()
        path.write_bytes(path.read_bytes()[:9000])
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="cannot be used"):
        migrate.open_database(str(path))
    assert path.read_bytes() == before


def test_writers_of_many_threads_wait_for_each_other(tmp_path: Path) -> None:
    import threading

    database = migrate.open_database(str(tmp_path / "pylxc.db"))

    def write(number: int) -> None:
        for _ in range(5):
            with database.transaction() as session:
                row = profiles.get(session, "default", "default")
                row.config = {**row.config, f"user.{number}": row.config.get(f"user.{number}", "") + "x"}

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert profiles.get(session, "default", "default").config == {f"user.{n}": "xxxxx" for n in range(4)}
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2
    database.close()
