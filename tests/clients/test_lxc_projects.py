"""`project` of Debian's `lxc`, and of `pylxc`, which says the same; what moves between projects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.clients.conftest import REFERENCE, Run
from tests.support.daemon import POOL_ONLY, Daemon, unique

ROOT = ("root", "disk", "path=/", "pool=default")


@pytest.fixture(scope="module", autouse=True)
def pool(lxc_daemon: Daemon | None) -> None:
    if lxc_daemon:
        lxc_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))


@pytest.fixture
def project(run: Run) -> Iterator[str]:
    """Return a project of the test's own, with a root disk in its default profile."""
    name = unique("p")
    run("project", "create", name, "-c", "features.images=false")
    run("profile", "device", "add", "default", *ROOT, "--project", name)
    yield name
    remove(run, name)


def remove(run: Run, name: str) -> None:
    """Remove a project with all that is in it."""
    for used in json.loads(run("query", f"/1.0/projects/{name}").stdout)["used_by"]:
        if "/profiles/default" not in used:
            run("query", "--wait", "-X", "DELETE", used)
    run("project", "delete", name)


def rows(run: Run, *command: str) -> list[list[str]]:
    """Return what a command lists."""
    return list(csv.reader(io.StringIO(run(*command, "--format", "csv").stdout)))


def test_life(run: Run) -> None:
    name, new = unique("p"), unique("q")
    run("project", "create", name, "-c", "features.networks=false", "-c", "user.note=a b")
    assert rows(run, "project", "list")[0][:5] == ["default (current)", "YES", "YES", "YES", "YES"]
    assert [name, "YES", "YES", "YES", "NO", "", "1"] in rows(run, "project", "list")
    shown: dict[str, Any] = yaml.safe_load(run("project", "show", name).stdout)
    assert shown["config"]["user.note"] == "a b"
    assert shown["used_by"] == [f"/1.0/profiles/default?project={name}"]
    run("project", "set", name, "limits.instances=2", "user.note=c")
    assert run("project", "get", name, "limits.instances").stdout == "2\n"
    run("project", "unset", name, "user.note")
    assert run("project", "get", name, "user.note").stdout == "\n"
    shown["config"]["limits.memory"] = "1GiB"
    shown["description"] = "edited"
    run("project", "edit", name, input=yaml.safe_dump(shown))
    assert ["INSTANCES", "UNLIMITED", "0"] in rows(run, "project", "info", name)
    assert ["MEMORY", "1.00GiB", "0B"] in rows(run, "project", "info", name)
    assert [row[5] for row in rows(run, "project", "list") if row[0] == name] == ["edited"]
    run("project", "rename", name, new)
    run("project", "switch", new)
    assert f"{new} (current)" in [row[0] for row in rows(run, "project", "list")]
    run("project", "switch", "default")
    run("project", "delete", new)
    assert new not in run("project", "list").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("delete", "default"), "cannot be deleted"),
        (("rename", "default", "other"), "cannot be renamed"),
        (("create", "a_b"), "nderscores"),
        (("create", "default"), "already exists"),
        (("set", "default", "limits.instances=many"), "limits.instances"),
        (("set", "default", "features.images=false"), "You can't change the features of the default project"),
        (("show", "nowhere"), "not found"),
        (("switch", "nowhere"), "not found"),
    ],
)
def test_what_is_refused(run: Run, words: tuple[str, ...], text: str) -> None:
    done = run("project", *words, check=False)
    assert done.returncode == 1
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_project_in_use(run: Run, project: str, image: str) -> None:
    run("init", image, "c1", "--project", project)
    for words in (("delete", project), ("set", project, "features.profiles=false")):
        done = run("project", *words, check=False)
        assert "nly empty projects" in done.stderr or "on non-empty projects" in done.stderr
        assert REFERENCE or "instance c1" in done.stderr


def test_instances_of_one_name(run: Run, project: str, image: str) -> None:
    name = unique("c")
    run("launch", image, name)
    run("launch", image, name, "--project", project)
    try:
        listed = rows(run, "list", "--all-projects", "-c", "ens", name)
        assert listed == [["default", name, "RUNNING"], [project, name, "RUNNING"]]
        for where in ("default", project):
            run("exec", "--project", where, name, "--", "sh", "-c", f"echo {where} > /root/where")
        for where in ("default", project):
            assert run("exec", "--project", where, name, "--", "cat", "/root/where").stdout == f"{where}\n"
        run("stop", "--force", name, "--project", project)
        assert rows(run, "list", "--all-projects", "-c", "es", name) == [["default", "RUNNING"], [project, "STOPPED"]]
    finally:
        run("delete", "--force", name)


def test_limits(run: Run, project: str, image: str) -> None:
    run("project", "set", project, "limits.instances=1")
    run("init", image, "c1", "--project", project)
    done = run("init", image, "c2", "--project", project, check=False)
    assert f'Reached maximum number of instances in project "{project}"' in done.stderr
    assert ["INSTANCES", "1", "1"] in rows(run, "project", "info", project)


def test_between_projects(run: Run, project: str, image: str) -> None:
    name = unique("c")
    run("init", image, name, "-c", "user.note=kept")
    run("snapshot", name, "s0")
    run("copy", name, name, "--target-project", project)
    assert run("config", "get", name, "user.note", "--project", project).stdout == "kept\n"
    run("delete", name, "--project", project)
    run("move", name, "--target-project", project)
    assert run("list", "-c", "n", "-f", "csv", name).stdout == ""
    assert run("list", "-c", "nS", "-f", "csv", name, "--project", project).stdout == f"{name},1\n"
    run("move", f"{name}", f"{name}x", "--target-project", "default", "--project", project)
    run("delete", f"{name}x")


def test_profiles_and_volumes_between_projects(run: Run) -> None:
    one, two = unique("p"), unique("p")
    for name in (one, two):
        run("project", "create", name)
    run("profile", "create", "small", "--project", one)
    run("profile", "set", "small", "limits.cpu=1", "--project", one)
    run("profile", "copy", "small", "tiny", "--target-project", two, "--project", one)
    assert run("profile", "get", "tiny", "limits.cpu", "--project", two).stdout == "1\n"
    run("storage", "volume", "create", "default", "data", "--project", one)
    run("storage", "volume", "copy", "default/data", "default/copy", "--target-project", two, "--project", one)
    run("storage", "volume", "move", "default/data", "default/moved", "--target-project", two, "--project", one)
    volumes = rows(run, "storage", "volume", "list", "default", "--project", two)
    listed = [row[1] for row in volumes if row[0] == "custom"]
    assert sorted(listed) == ["copy", "moved"]
    for name in (one, two):
        remove(run, name)
