"""Images between two servers, by Debian's unmodified `lxc`, which both trust; the servers do not trust each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.test_images import image as make_image
from tests.support.daemon import ApiError, Daemon, unique
from tests.support.two_servers import ADDRESSES, TwoServers
from tests.support.wait import until

MODES = ("pull", "push", "relay")


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None], busybox_files: list[str]
) -> Iterator[TwoServers]:
    need("lxc")
    two = TwoServers(str(tmp_path_factory.mktemp("lxc")))
    try:
        two.start()
        two.lxc("image", "import", *busybox_files, "a:", "--alias", "busybox", "--alias", "bb/one")
        yield two
    finally:
        problems = two.close()
    assert not problems, problems


@pytest.fixture
def unified(two: TwoServers, tmp_path: Path) -> tuple[str, str]:
    """Return alias and fingerprint of an image of one file, private on a, with changed properties and an end."""
    content, alias = make_image(), unique("one")
    (tmp_path / "unified.tar.gz").write_bytes(content)
    fingerprint = hashlib.sha256(content).hexdigest()
    two.lxc("image", "import", str(tmp_path / "unified.tar.gz"), "a:", "--alias", alias, "colour=blue")
    two.a.request("PATCH", f"/1.0/images/{fingerprint}", {"expires_at": "2040-01-02T03:04:05Z"})
    return alias, fingerprint


@pytest.fixture(autouse=True)
def nothing_left(two: TwoServers) -> Iterator[None]:
    yield
    for fingerprint in two.b.request("GET", "/1.0/images"):
        two.b.request("DELETE", fingerprint)


def fingerprint_of(daemon: Daemon, alias: str) -> str:
    target: str = daemon.request("GET", f"/1.0/images/aliases/{alias.replace('/', '%2F')}")["target"]
    return target


@pytest.mark.parametrize("mode", MODES)
def test_split(two: TwoServers, mode: str) -> None:
    """By alias, with its aliases and one more; what arrives starts."""
    two.lxc("image", "copy", "a:busybox", "b:", "--mode", mode, "--copy-aliases", "--alias", "more")
    fingerprint = fingerprint_of(two.a, "busybox")
    assert {fingerprint_of(two.b, alias) for alias in ("busybox", "bb/one", "more")} == {fingerprint}
    theirs, ours = (daemon.request("GET", f"/1.0/images/{fingerprint}") for daemon in (two.a, two.b))
    for field in ("properties", "created_at", "expires_at", "architecture", "size", "type", "profiles"):
        assert ours[field] == theirs[field], field
    assert (ours["public"], ours["cached"], ours["auto_update"]) == (False, False, False)
    name = unique("c")
    two.lxc("launch", "b:more", f"b:{name}")
    assert two.b.instances()[name] == "Running"
    two.lxc("delete", "--force", f"b:{name}")


@pytest.mark.parametrize("mode", MODES)
def test_unified(two: TwoServers, unified: tuple[str, str], mode: str) -> None:
    """By the beginning of its fingerprint, made public; what was changed of it goes along."""
    fingerprint = unified[1]
    two.lxc("image", "copy", f"a:{fingerprint[:16]}", "b:", "--mode", mode, "--public", "--alias", "x/y")
    found = two.b.request("GET", f"/1.0/images/{fingerprint}")
    assert found["public"] is True
    assert found["aliases"] == [{"name": "x/y", "description": ""}]
    if mode != "relay":  # `lxc` has the files only
        assert found["properties"]["colour"] == "blue"
        assert found["expires_at"].startswith("2040-01-02T03:04:05")
    if mode == "push":  # who pulls what is there sets its flags; of a relay's failure `lxc` says nothing
        refused = two.lxc("image", "copy", f"a:{fingerprint}", "b:", "--mode", mode, check=False)
        assert (refused.returncode, "same fingerprint already exists" in refused.stderr) == (1, True)


def test_an_image_that_follows_its_alias(two: TwoServers, tmp_path: Path) -> None:
    """A public one, copied with --auto-update, is replaced when its alias moves there."""
    versions = [make_image(), make_image()]
    prints = [hashlib.sha256(version).hexdigest() for version in versions]
    alias = unique("moving")
    for version in versions:
        (tmp_path / "version.tar.gz").write_bytes(version)
        two.lxc("image", "import", str(tmp_path / "version.tar.gz"), "a:", "--public", "--alias", alias)
        if version is versions[0]:
            two.lxc("image", "copy", f"a:{alias}", "b:", "--auto-update", "--alias", "here")
            kept = two.b.request("GET", f"/1.0/images/{prints[0]}")
            assert (kept["auto_update"], kept["update_source"]["alias"]) == (True, alias)
            assert kept["update_source"]["server"] == f"https://{ADDRESSES['a']}:8443"
    refreshed = two.b.request("POST", f"/1.0/images/{prints[0]}/refresh")
    assert (refreshed["refreshed"], refreshed["fingerprint"]) == (True, prints[1])
    assert fingerprint_of(two.b, "here") == prints[1]
    assert [image["fingerprint"] for image in two.b.request("GET", "/1.0/images?recursion=1")] == [prints[1]]


def test_launch_from_the_other_server(two: TwoServers) -> None:
    """A private image, by a token; cached, as what comes from public servers."""
    for words in (["launch"], ["init"]):
        name = unique("c")
        two.lxc(*words, "a:busybox", f"b:{name}")
        assert two.b.instances()[name] == ("Running" if words == ["launch"] else "Stopped")
    fingerprint = fingerprint_of(two.a, "busybox")
    assert two.b.request("GET", f"/1.0/images/{fingerprint}")["cached"] is True
    two.b.delete_all()


def test_publish_to_the_other_server(two: TwoServers) -> None:
    name = unique("c")
    two.lxc("init", "a:busybox", f"a:{name}")
    before = two.a.request("GET", "/1.0/images")
    two.lxc("publish", f"a:{name}", "b:", "--alias", "published", "--public", "release=mine")
    found = two.b.request("GET", f"/1.0/images/{fingerprint_of(two.b, 'published')}")
    assert (found["public"], found["properties"]) == (True, {"release": "mine"})
    until(lambda: two.a.request("GET", "/1.0/images") == before, "it is no image there")  # `lxc` does not wait
    two.a.delete_all()


def test_projects(two: TwoServers, unified: tuple[str, str]) -> None:
    """From a project with images of its own into one; a restricted client moves its projects' images only."""
    alias, fingerprint = unified
    for daemon, project in ((two.a, "from"), (two.b, "to")):
        daemon.request("POST", "/1.0/projects", {"name": project, "config": {"features.images": "true"}})
    two.lxc("image", "copy", f"a:{alias}", "b:", "--target-project", "to", "--alias", "here")
    assert two.b.request("GET", f"/1.0/images/{fingerprint}?project=to")["aliases"][0]["name"] == "here"
    with pytest.raises(ApiError, match="not found"):
        two.b.request("GET", f"/1.0/images/{fingerprint}")
    two.b.request("DELETE", f"/1.0/images/{fingerprint}?project=to")


@pytest.mark.parametrize("mode", MODES)
def test_instances_and_volumes_stay(two: TwoServers, mode: str) -> None:
    """One clear line, and nothing has changed on either side."""
    name, volume = unique("c"), unique("v")
    two.lxc("init", "a:busybox", f"a:{name}")
    two.lxc("storage", "volume", "create", "a:default", volume)
    seen = [state(daemon) for daemon in (two.a, two.b)]
    for words in (
        ["copy", f"a:{name}", "b:"],
        ["move", f"a:{name}", "b:"],
        ["storage", "volume", "copy", f"a:default/{volume}", f"b:default/{volume}"],
        ["storage", "volume", "move", f"a:default/{volume}", f"b:default/{volume}"],
    ):
        refused = two.lxc(*words, "--mode", mode, check=False)
        assert refused.returncode == 1
        (line,) = refused.stderr.strip().splitlines()
        assert "another server" in line or "storage_api_remote_volume_handling" in line
    assert [state(daemon) for daemon in (two.a, two.b)] == seen
    two.a.delete_all()
    two.lxc("storage", "volume", "delete", "a:default", volume)


def state(daemon: Daemon) -> list[Any]:
    return [daemon.request("GET", path) for path in ("/1.0/instances", "/1.0/storage-pools/default/volumes/custom")]


@pytest.mark.parametrize("mode", MODES)
def test_by_our_own_command(two: TwoServers, unified: tuple[str, str], mode: str) -> None:
    """From the socket to a server on the network, and a split one back from there."""
    alias, fingerprint = unified
    token = two.b.command("config", "trust", "add", "--name", unique("pylxc")).stdout.strip().splitlines()[-1]
    name = unique("b")
    two.a.command("remote", "add", name, token)
    two.a.command("image", "copy", alias, f"{name}:", "--mode", mode, "--copy-aliases", "--alias", "mine")
    found = two.b.request("GET", f"/1.0/images/{fingerprint}")
    assert {each["name"] for each in found["aliases"]} == {alias, "mine"}
    assert found["properties"]["colour"] == "blue"
    assert found["expires_at"].startswith("2040-01-02T03:04:05")
    two.lxc("image", "copy", "a:busybox", "b:", "--alias", "split")
    split = fingerprint_of(two.b, "split")
    two.a.request("DELETE", f"/1.0/images/{split}")
    two.a.command("image", "copy", f"{name}:split", "local:", "--mode", mode, "--alias", "busybox", "--alias", "bb/one")
    assert fingerprint_of(two.a, "busybox") == split
    for words in ([alias, "local:"], [f"{name}:split", f"{name}:"]):
        refused = two.a.command("image", "copy", *words, check=False)
        assert refused.stderr == "Error: The source and target servers must be different\n"
    two.a.command("remote", "remove", name)
